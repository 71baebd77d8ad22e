// Builds: a Dockerfile and its context, live progress, and the last builds.
import {html, useEffect, useQuery, useRef, useState, PageHead, Card, Table, Badge, Empty, ErrorBox, Id, icon} from '../ui.js';
import {lines} from '../api.js';
import {t} from '../i18n.js';
import {ago} from '../format.js';
import {archive} from './container/tar.js';
import {ansiParts} from './container/output.js';
import {style} from '../styles.js';

await Promise.all([style('pages/container.css'), style('pages/builds.css')]);

const MAX_LINES = 5000;

const words = {
  en: {
    'builds.title': 'Builds',
    'builds.about': 'Each step runs as isolated as a container.',
    'builds.tag': 'Name of the image',
    'builds.dockerfile': 'Dockerfile',
    'builds.context': 'Files of the context',
    'builds.contextAbout': 'Choose files or a directory; COPY finds them.',
    'builds.files': 'Files',
    'builds.directory': 'Directory',
    'builds.count': ['{count} file', '{count} files'],
    'builds.target': 'Stage',
    'builds.args': 'Arguments, NAME=value in each line',
    'builds.noCache': 'Without the cache',
    'builds.pull': 'Pull newer base images',
    'builds.build': 'Build',
    'builds.stop': 'Stop',
    'builds.progress': 'Progress',
    'builds.running': 'building, step {step} of {steps}',
    'builds.done': 'built',
    'builds.failed': 'failed',
    'builds.last': 'Last builds of your BuildKit clients',
    'builds.none': 'None since the engine started',
    'builds.name': 'Image',
    'builds.state': 'State',
    'builds.steps': 'Steps',
    'builds.cached': '{count} cached',
    'builds.time': 'Time',
    'builds.when': 'When',
  },
  es: {
    'builds.title': 'Construcciones',
    'builds.about': 'Cada paso se ejecuta tan aislado como un contenedor.',
    'builds.tag': 'Nombre de la imagen',
    'builds.dockerfile': 'Dockerfile',
    'builds.context': 'Archivos del contexto',
    'builds.contextAbout': 'Elige archivos o un directorio; COPY los encuentra.',
    'builds.files': 'Archivos',
    'builds.directory': 'Directorio',
    'builds.count': ['{count} archivo', '{count} archivos'],
    'builds.target': 'Etapa',
    'builds.args': 'Argumentos, NOMBRE=valor en cada línea',
    'builds.noCache': 'Sin la caché',
    'builds.pull': 'Descargar imágenes base más nuevas',
    'builds.build': 'Construir',
    'builds.stop': 'Parar',
    'builds.progress': 'Progreso',
    'builds.running': 'construyendo, paso {step} de {steps}',
    'builds.done': 'construida',
    'builds.failed': 'fallida',
    'builds.last': 'Últimas construcciones de tus clientes BuildKit',
    'builds.none': 'Ninguna desde que arrancó el motor',
    'builds.name': 'Imagen',
    'builds.state': 'Estado',
    'builds.steps': 'Pasos',
    'builds.cached': '{count} de la caché',
    'builds.time': 'Tiempo',
    'builds.when': 'Cuándo',
  },
};

const EXAMPLE = 'FROM busybox\nRUN echo hello > /hello\nCMD ["cat", "/hello"]\n';
let current = null; // the build of this page; it goes on while other pages show

class Build {
  constructor() {
    this.lines = [];
    this.step = 0;
    this.steps = 0;
    this.state = 'running';
    this.error = null;
    this.abort = new AbortController();
    this.changed = () => {};
  }

  add(text) {
    for (const line of text.replace(/\n$/, '').split('\n')) {
      const step = /^Step (\d+)\/(\d+) : /.exec(line);
      if (step) [this.step, this.steps] = [Number(step[1]), Number(step[2])];
      this.lines.push({text: line, step: Boolean(step)});
    }
    if (this.lines.length > MAX_LINES) this.lines.splice(0, this.lines.length - MAX_LINES);
    this.changed();
  }

  async run(path, body) {
    try {
      for await (const message of lines('POST', path, {body, headers: {'Content-Type': 'application/x-tar'}, signal: this.abort.signal})) {
        if (message.stream) this.add(message.stream);
        else if (message.status) this.add(`${message.id ? `${message.id}: ` : ''}${message.status}${message.progress ? ` ${message.progress}` : ''}`);
      }
      this.state = 'done';
    } catch (error) {
      this.state = 'failed';
      this.error = error.name === 'AbortError' ? null : error;
    }
    this.changed();
  }
}

function Output({build}) {
  const node = useRef();
  const atEnd = useRef(true);
  useEffect(() => {
    if (atEnd.current && node.current) node.current.scrollTop = node.current.scrollHeight;
  });
  return html`<div class="log wrap build-log" ref=${node} tabindex="0" role="log" aria-label=${t('builds.progress')} onScroll=${event => {
    const {scrollHeight, scrollTop, clientHeight} = event.currentTarget;
    atEnd.current = scrollHeight - scrollTop - clientHeight < 24;
  }}>${build.lines.slice(-1500).map((line, i) => html`<div key=${i} class="line ${line.step ? 'step' : ''}">${ansiParts(line.text).map(([classes, text]) => (classes ? html`<span class=${classes}>${text}</span>` : text))}</div>`)}</div>`;
}

function View() {
  const [tag, setTag] = useState('');
  const [dockerfile, setDockerfile] = useState(EXAMPLE);
  const [target, setTarget] = useState('');
  const [args, setArgs] = useState('');
  const [noCache, setNoCache] = useState(false);
  const [pull, setPull] = useState(false);
  const [files, setFiles] = useState([]);
  const [, redraw] = useState(0);
  const records = useQuery('/jaula/builds', {types: ['image', 'builder'], every: 10000});
  const file = useRef();
  const directory = useRef();
  useEffect(() => {
    let frame = 0;
    if (current) current.changed = () => {
      frame ||= requestAnimationFrame(() => {
        frame = 0;
        redraw(n => n + 1);
      });
    };
    return () => cancelAnimationFrame(frame);
  });

  const build = () => {
    const query = new URLSearchParams({rm: '1', version: '1'});
    if (tag) query.set('t', tag);
    if (target) query.set('target', target);
    if (noCache) query.set('nocache', '1');
    if (pull) query.set('pull', '1');
    const pairs = args.split('\n').filter(line => line.includes('=')).map(line => [line.slice(0, line.indexOf('=')).trim(), line.slice(line.indexOf('=') + 1)]);
    if (pairs.length) query.set('buildargs', JSON.stringify(Object.fromEntries(pairs)));
    const own = new File([dockerfile], 'Dockerfile', {lastModified: 0});
    const context = archive([own, ...files.filter(({name}) => name !== 'Dockerfile').map(({name, file: content}) => Object.assign(content, {archiveName: name}))]);
    current = new Build();
    redraw(n => n + 1);
    current.run(`/build?${query}`, context).then(records.reload);
  };
  const choose = list => setFiles([...list].map(one => {
    const path = one.webkitRelativePath;
    return {name: path ? path.slice(path.indexOf('/') + 1) : one.name, file: one};
  }));
  const rows = [...(records.data || [])].reverse();

  return html`<${PageHead} title=${t('builds.title')} about=${t('builds.about')} />
    <div class="builds">
      <form class="card stack" onSubmit=${event => {
        event.preventDefault();
        build();
      }}>
        <label class="field"><span>${t('builds.tag')}</span><input value=${tag} placeholder="app:1.0" onInput=${event => setTag(event.currentTarget.value.trim())} spellcheck=${false} autocomplete="off" /></label>
        <label class="field"><span>${t('builds.dockerfile')}</span><textarea rows="12" value=${dockerfile} onInput=${event => setDockerfile(event.currentTarget.value)} spellcheck=${false} required></textarea></label>
        <div class="field"><span>${t('builds.context')}</span><div class="row">
          <input ref=${file} class="hidden" type="file" multiple tabindex="-1" aria-hidden="true" onChange=${event => choose(event.currentTarget.files)} />
          <input ref=${node => {
            directory.current = node;
            if (node) node.webkitdirectory = true;
          }} class="hidden" type="file" tabindex="-1" aria-hidden="true" onChange=${event => choose(event.currentTarget.files)} />
          <button type="button" onClick=${() => file.current.click()}>${icon('file', 16)} ${t('builds.files')}</button>
          <button type="button" onClick=${() => directory.current.click()}>${icon('files', 16)} ${t('builds.directory')}</button>
          <span class="small soft">${t('builds.count', {count: files.length})}</span></div><small>${t('builds.contextAbout')}</small></div>
        <label class="field"><span>${t('builds.target')}</span><input value=${target} onInput=${event => setTarget(event.currentTarget.value.trim())} spellcheck=${false} autocomplete="off" /></label>
        <label class="field"><span>${t('builds.args')}</span><textarea rows="2" value=${args} onInput=${event => setArgs(event.currentTarget.value)} spellcheck=${false}></textarea></label>
        <div class="row"><label class="check"><input type="checkbox" checked=${noCache} onChange=${event => setNoCache(event.currentTarget.checked)} /> ${t('builds.noCache')}</label>
        <label class="check"><input type="checkbox" checked=${pull} onChange=${event => setPull(event.currentTarget.checked)} /> ${t('builds.pull')}</label></div>
        <div class="buttons">${current?.state === 'running' && html`<button type="button" class="danger" onClick=${() => current.abort.abort()}>${t('builds.stop')}</button>`}
        <button class="primary" disabled=${current?.state === 'running'}>${icon('builds', 16)} ${t('builds.build')}</button></div>
      </form>
      <div class="stack">
        ${current && html`<${Card} title=${t('builds.progress')} actions=${html`<${Badge} kind=${{running: 'plain', done: 'holds', failed: 'fails'}[current.state]}><span role="status">${t(`builds.${current.state}`, {step: current.step, steps: current.steps})}</span><//>`}>
          <${ErrorBox} error=${current.error} /><${Output} build=${current} /><//>`}
        <${Card} title=${t('builds.last')}><${ErrorBox} error=${records.error} />
          <${Table} label=${t('builds.last')} rows=${rows} rowKey=${row => row.Ref} empty=${html`<p class="faint">${t('builds.none')}</p>`} columns=${[
            {key: 'name', title: t('builds.name'), render: row => html`${row.Names || row.File || row.Frontend}<br /><${Id} value=${row.Digest || row.Ref} />`},
            {key: 'state', title: t('builds.state'), render: row => html`<${Badge} kind=${row.Error ? 'fails' : 'holds'} title=${row.Error}>${row.Error ? t('builds.failed') : t('builds.done')}<//>`},
            {key: 'steps', title: t('builds.steps'), hide: 'phone', render: row => html`${row.Steps} <span class="small faint">${t('builds.cached', {count: row.Cached})}</span>`},
            {key: 'time', title: t('builds.time'), align: 'right', render: row => `${((row.Completed - row.Created) / 1e9).toFixed(1)} s`},
            {key: 'when', title: t('builds.when'), align: 'right', hide: 'phone', render: row => html`<span class="small soft">${ago(row.Completed / 1e9)}</span>`},
          ]} /><//>
      </div>
    </div>`;
}

export const page = {words, View};
