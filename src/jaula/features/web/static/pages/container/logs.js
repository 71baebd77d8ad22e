// The output of a container: follow, search, bounded memory.
import {html, useEffect, useRef, useState, useStored, ErrorBox, icon} from '../../ui.js';
import {onState, stream} from '../../api.js';
import {t, language} from '../../i18n.js';
import {Demultiplexer, ansiParts} from './output.js';

export const MAX_LINES = 5000;
const MAX_LINE = 20000; // characters of one line that are shown

// Keeps lines in the document itself: a framework would compare all of them for each new one.
class LogView {
  constructor(node) {
    this.node = node;
    this.lines = [];
    this.pending = [];
    this.filter = '';
    this.matches = 0;
    this.frame = 0;
    this.atEnd = true;
    this.onChange = () => {};
    node.onscroll = () => {
      this.atEnd = node.scrollHeight - node.scrollTop - node.clientHeight < 24;
      this.onChange();
    };
  }

  add(kind, text) {
    this.pending.push([kind, text]);
    if (this.pending.length > MAX_LINES) this.pending.splice(0, this.pending.length - MAX_LINES);
    if (!this.frame) this.frame = requestAnimationFrame(() => this.flush());
  }

  flush() {
    this.frame = 0;
    const fragment = document.createDocumentFragment();
    for (const [kind, text] of this.pending) {
      const line = this.build(kind, text);
      this.lines.push(line);
      fragment.append(line.node);
    }
    this.pending = [];
    this.node.append(fragment);
    while (this.lines.length > MAX_LINES) {
      const old = this.lines.shift();
      if (old.matched) this.matches--;
      old.node.remove();
    }
    if (this.atEnd) this.node.scrollTop = this.node.scrollHeight;
    this.onChange();
  }

  build(kind, raw) {
    const node = document.createElement('div');
    node.className = kind === 2 ? 'line err' : 'line';
    let text = raw;
    const stamp = /^(\d{4}-\d\d-\d\dT[\d:.]+Z) /.exec(text);
    if (stamp) {
      text = text.slice(stamp[0].length);
      const time = document.createElement('time');
      time.dateTime = stamp[1];
      time.textContent = new Date(stamp[1]).toLocaleTimeString(language());
      time.title = stamp[1];
      node.append(time);
    }
    let plain = '';
    for (const [classes, part] of ansiParts(text.slice(0, MAX_LINE))) {
      plain += part;
      if (classes) {
        const span = document.createElement('span');
        span.className = classes;
        span.textContent = part;
        node.append(span);
      } else node.append(part);
    }
    const line = {node, plain: plain.toLowerCase(), text: plain, matched: false};
    this.match(line);
    return line;
  }

  match(line) {
    const matched = Boolean(this.filter) && line.plain.includes(this.filter);
    if (matched !== line.matched) this.matches += matched ? 1 : -1;
    line.matched = matched;
    line.node.hidden = Boolean(this.filter) && !matched;
  }

  setFilter(text) {
    this.filter = text.toLowerCase();
    for (const line of this.lines) this.match(line);
    if (this.atEnd) this.node.scrollTop = this.node.scrollHeight;
    this.onChange();
  }

  clear() {
    this.node.replaceChildren();
    this.lines = [];
    this.pending = [];
    this.matches = 0;
    this.onChange();
  }

  text() {
    return this.lines.filter(line => !this.filter || line.matched).map(line => line.text).join('\n');
  }
}

export function Logs({id, name, tty, started}) {
  const node = useRef();
  const view = useRef();
  const [error, setError] = useState(null);
  const [attempt, setAttempt] = useState(0); // rises when the stream was lost and the engine is back
  const lost = useRef(false);
  const [ready, setReady] = useState(false);
  const [filter, setFilter] = useState('');
  const [follow, setFollow] = useState(true);
  const [times, setTimes] = useStored('logs.times', false);
  const [wrap, setWrap] = useStored('logs.wrap', true);
  const [tail, setTail] = useStored('logs.tail', '500');
  const [counts, setCounts] = useState({lines: 0, matches: 0, atEnd: true});

  useEffect(() => {
    const log = new LogView(node.current);
    view.current = log;
    log.filter = filter.toLowerCase();
    log.onChange = () => setCounts({lines: log.lines.length, matches: log.matches, atEnd: log.atEnd});
    return () => cancelAnimationFrame(log.frame);
  }, []);

  useEffect(() => {
    const log = view.current;
    log.clear();
    setError(null);
    setReady(false);
    const demultiplexer = new Demultiplexer(tty, (kind, line) => log.add(kind, line));
    const query = `stdout=1&stderr=1&follow=${follow ? 1 : 0}&timestamps=${times ? 1 : 0}&tail=${tail}`;
    return stream(`/containers/${encodeURIComponent(id)}/logs?${query}`, {
      head: () => setReady(true),
      data: part => demultiplexer.add(part),
      end: problem => {
        demultiplexer.end();
        if (!problem) return;
        setError(problem);
        lost.current = !problem.status || problem.status === 502;
      },
    });
  }, [id, tty, follow, times, tail, started, attempt]);

  useEffect(() => onState(state => {
    if (state !== 'up' || !lost.current) return;
    lost.current = false;
    setAttempt(number => number + 1);
  }), []);

  useEffect(() => view.current.setFilter(filter), [filter]);

  const save = () => {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([view.current.text()], {type: 'text/plain'}));
    link.download = `${name}.log`;
    link.click();
    URL.revokeObjectURL(link.href);
  };
  const toEnd = () => {
    view.current.atEnd = true;
    node.current.scrollTop = node.current.scrollHeight;
  };

  return html`<div class="logs">
    <div class="toolbar">
      <label class="search">${icon('search', 16)}<span class="hidden">${t('logs.search')}</span><input type="search" data-search placeholder=${t('logs.search')} value=${filter} onInput=${event => setFilter(event.currentTarget.value)} /></label>
      <span class="small soft" role="status">${filter ? t('logs.matches', {count: counts.matches}) : t('logs.lines', {count: counts.lines})}</span>
      <span class="grow"></span>
      <label class="check"><input type="checkbox" checked=${follow} onChange=${event => setFollow(event.currentTarget.checked)} /> ${t('logs.follow')}</label>
      <label class="check"><input type="checkbox" checked=${times} onChange=${event => setTimes(event.currentTarget.checked)} /> ${t('logs.times')}</label>
      <label class="check"><input type="checkbox" checked=${wrap} onChange=${event => setWrap(event.currentTarget.checked)} /> ${t('logs.wrap')}</label>
      <select aria-label=${t('logs.tail')} value=${tail} onChange=${event => setTail(event.currentTarget.value)}>${['100', '500', '5000'].map(count => html`<option value=${count}>${t('logs.last', {count})}</option>`)}</select>
      <button class="ghost" onClick=${save} title=${t('logs.save')} aria-label=${t('logs.save')}>${icon('download', 16)}</button>
    </div>
    <${ErrorBox} error=${error} />
    <div class="log-frame"><div ref=${node} class="log ${wrap ? 'wrap' : ''}" role="log" aria-label=${t('logs.label', {name})} aria-live="off" tabindex="0"></div>
      ${!counts.atEnd && html`<button class="to-end primary" onClick=${toEnd}>${t('logs.toEnd')}</button>`}
      ${ready && counts.lines === 0 && html`<p class="log-empty faint">${t('logs.empty')}</p>`}</div>
  </div>`;
}

Logs.words = {
  en: {
    'logs.search': 'Search in the output',
    'logs.matches': ['{count} line matches', '{count} lines match'],
    'logs.lines': ['{count} line', '{count} lines'],
    'logs.follow': 'Follow',
    'logs.times': 'Times',
    'logs.wrap': 'Wrap',
    'logs.tail': 'How many lines',
    'logs.last': 'last {count}',
    'logs.save': 'Save what is shown',
    'logs.label': 'Output of {name}',
    'logs.toEnd': 'To the end',
    'logs.empty': 'No output yet',
  },
  es: {
    'logs.search': 'Buscar en la salida',
    'logs.matches': ['{count} línea coincide', '{count} líneas coinciden'],
    'logs.lines': ['{count} línea', '{count} líneas'],
    'logs.follow': 'Seguir',
    'logs.times': 'Horas',
    'logs.wrap': 'Ajustar',
    'logs.tail': 'Cuántas líneas',
    'logs.last': 'últimas {count}',
    'logs.save': 'Guardar lo mostrado',
    'logs.label': 'Salida de {name}',
    'logs.toEnd': 'Al final',
    'logs.empty': 'Aún no hay salida',
  },
};
