// Terminals in a container: exec and attach, several at once. They stay open while other pages show.
import {html, useEffect, useRef, useState, Empty, icon, toast} from '../../ui.js';
import {terminalSocket} from '../../api.js';
import {t} from '../../i18n.js';
import {style} from '../../styles.js';
import {splitWords} from '../../words.js';

const sessions = new Map(); // id of a container: its sessions
let nextId = 1;
const SHOWN_STEP = 64 * 1024; // bytes of shown output between two reports to the view

// xterm makes style elements and style attributes, which the policy of the page forbids. Style sheets
// that a script constructs and properties that it sets are allowed, so these are used in their place.
function styledDocument() {
  const setStyle = function (name, value) {
    if (name === 'style') this.style.cssText = value;
    else Element.prototype.setAttribute.call(this, name, value);
  };
  const create = (name, options) => {
    if (String(name).toLowerCase() !== 'style') {
      const element = Document.prototype.createElement.call(document, name, options);
      element.setAttribute = setStyle;
      return element;
    }
    const element = Document.prototype.createElement.call(document, 'template');
    const sheet = new CSSStyleSheet();
    const set = value => {
      sheet.replaceSync(String(value));
      if (!document.adoptedStyleSheets.includes(sheet)) document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
    };
    Object.defineProperty(element, 'textContent', {get: () => '', set});
    element.remove = () => {
      document.adoptedStyleSheets = document.adoptedStyleSheets.filter(other => other !== sheet);
      Element.prototype.remove.call(element);
    };
    return element;
  };
  return new Proxy(document, {
    get(target, key) {
      if (key === 'createElement') return create;
      const value = target[key];
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

function theme() {
  const css = getComputedStyle(document.documentElement);
  const color = name => css.getPropertyValue(name).trim();
  const dark = document.documentElement.dataset.theme === 'dark';
  return {
    background: color('--sunken'), foreground: color('--text'), cursor: color('--accent'), selectionBackground: dark ? '#2f5b4d' : '#b9dccd',
    black: dark ? '#25312b' : '#15201b', red: color('--fails'), green: color('--holds'), yellow: color('--relaxed'),
    blue: dark ? '#7fb2ff' : '#1f5fb8', magenta: dark ? '#d6a1f0' : '#8a3fa8', cyan: dark ? '#76d0d8' : '#11717a', white: dark ? '#e7eeea' : '#48584f',
    brightBlack: color('--text-faint'),
  };
}

class Session {
  constructor(container, options, changed) {
    this.id = nextId++;
    this.container = container;
    this.options = options;
    this.changed = changed;
    this.ended = '';
    this.closed = false;
    this.title = options.kind === 'attach' ? 'attach' : options.cmd.join(' ');
    this.element = document.createElement('div');
    this.element.className = 'terminal';
    this.begin().catch(error => this.fail(error));
  }

  async begin() {
    const [{Terminal}, {FitAddon}, {SearchAddon}] = await Promise.all([import('../../vendor/xterm.js'), import('../../vendor/xterm-fit.js'), import('../../vendor/xterm-search.js'), style('vendor/xterm.css')]);
    if (this.closed) return;
    const styled = styledDocument();
    this.term = new Terminal({fontFamily: getComputedStyle(document.documentElement).getPropertyValue('--mono'), fontSize: 13, scrollback: 5000, cursorBlink: true, theme: theme(), documentOverride: styled, allowProposedApi: false, screenReaderMode: false, minimumContrastRatio: 4.5});
    this.fit = new FitAddon();
    this.search = new SearchAddon();
    this.term.loadAddon(this.fit);
    this.term.loadAddon(this.search);
    // A part of xterm takes the document itself, but only here.
    document.createElement = styled.createElement;
    try {
      this.term.open(this.element);
    } finally {
      delete document.createElement;
    }
    this.term.textarea?.setAttribute('aria-label', t('terminal.input'));
    this.fit.fit();
    const send = document_ => this.socket.readyState === WebSocket.OPEN && this.socket.send(JSON.stringify(document_));
    const encoder = new TextEncoder();
    const {kind, cmd, user, plain} = this.options;
    // Without a terminal in the container nothing translates the ends of lines.
    this.term.options.convertEol = Boolean(plain);
    let early = []; // input before the socket is open; it follows the first message
    this.socket = terminalSocket(() => {
      send({container: this.container, kind, cmd, user, rows: this.term.rows, cols: this.term.cols});
      for (const data of early) this.socket.send(data);
      early = null;
    });
    const input = data => {
      if (early) early.push(data);
      else if (this.socket.readyState === WebSocket.OPEN) this.socket.send(data);
    };
    let shown = 0;
    this.socket.onmessage = event => {
      if (typeof event.data === 'string') {
        const end = JSON.parse(event.data);
        this.finish(end.message || t('terminal.ended', {code: end.code ?? '–'}));
        return;
      }
      const data = new Uint8Array(event.data);
      this.term.write(data, () => {
        shown += data.length;
        if (shown >= SHOWN_STEP) {
          send({shown});
          shown = 0;
        }
      });
    };
    this.socket.onclose = () => this.finish(t('terminal.lost'));
    this.term.onData(text => {
      if (plain && text === '\x04') input(JSON.stringify({eof: true}));
      else input(encoder.encode(plain ? text.replaceAll('\r', '\n') : text));
    });
    this.term.onBinary(text => input(Uint8Array.from(text, c => c.charCodeAt(0))));
    this.term.onResize(({rows, cols}) => send({rows, cols}));
    this.changed();
    if (this.element.isConnected) this.term.focus();
  }

  finish(message) {
    if (this.ended) return;
    this.ended = message;
    this.term.write(`\r\n\x1b[2m${message.replace(/[^\x20-\x7e\u00a0-\uffff]/g, ' ')}\x1b[0m\r\n`);
    this.term.options.cursorBlink = false;
    this.changed();
  }

  fail(error) {
    this.ended = error.message;
    toast(error.message, 'error');
    this.changed();
  }

  close() {
    this.closed = true;
    this.socket?.close();
    this.term?.dispose();
    this.element.remove();
  }
}

addEventListener('theme', () => {
  for (const list of sessions.values()) for (const session of list) if (session.term) session.term.options.theme = theme();
});

export function Terminals({id, state, tty, stdin}) {
  const [, redraw] = useState(0);
  const changed = () => redraw(n => n + 1);
  const list = sessions.get(id) || [];
  const [current, setCurrent] = useState(list[list.length - 1]?.id || 0);
  const [command, setCommand] = useState('sh');
  const [user, setUser] = useState('');
  const [find, setFind] = useState('');
  const frame = useRef();
  const shown = list.find(session => session.id === current) || list[list.length - 1];

  useEffect(() => {
    for (const session of list) session.changed = changed;
    if (!shown || !frame.current) return undefined;
    // An element that is put in its place again loses the focus, and with it what is typed.
    if (shown.element.parentNode !== frame.current) frame.current.replaceChildren(shown.element);
    const fit = () => shown.fit?.fit();
    requestAnimationFrame(() => {
      fit();
      shown.term?.focus();
    });
    const observer = new ResizeObserver(fit);
    observer.observe(frame.current);
    return () => observer.disconnect();
  }, [shown?.id, shown?.term]);

  const open = options => {
    const session = new Session(id, options, changed);
    sessions.set(id, [...list, session]);
    setCurrent(session.id);
    changed();
  };
  const close = session => {
    session.close();
    const rest = list.filter(other => other !== session);
    if (rest.length) sessions.set(id, rest);
    else sessions.delete(id);
    changed();
  };
  const running = state === 'running';

  return html`<div class="terminals">
    <form class="toolbar" onSubmit=${event => {
      event.preventDefault();
      open({kind: 'exec', cmd: splitWords(command), user});
    }}>
      <label class="field inline"><span>${t('terminal.command')}</span><input value=${command} list="shells" onInput=${event => setCommand(event.currentTarget.value)} required spellcheck=${false} autocomplete="off" /></label>
      <datalist id="shells"><option value="sh" /><option value="bash" /><option value="python3" /></datalist>
      <label class="field inline narrow"><span>${t('terminal.user')}</span><input value=${user} placeholder=${t('terminal.default')} onInput=${event => setUser(event.currentTarget.value)} spellcheck=${false} autocomplete="off" /></label>
      <button class="primary" disabled=${!running}>${icon('terminal', 16)} ${t('terminal.open')}</button>
      <button type="button" disabled=${!running} title=${tty ? '' : t('terminal.noTty')} onClick=${() => open({kind: 'attach', plain: !tty})}>${t('terminal.attach')}</button>
      <span class="grow"></span>
      ${shown && html`<label class="search">${icon('search', 16)}<span class="hidden">${t('terminal.search')}</span><input type="search" placeholder=${t('terminal.search')} value=${find} onInput=${event => {
        setFind(event.currentTarget.value);
        shown.search?.findPrevious(event.currentTarget.value, {incremental: true});
      }} onKeyDown=${event => {
        if (event.key === 'Enter') {
          event.preventDefault();
          shown.search?.[event.shiftKey ? 'findNext' : 'findPrevious'](find);
        }
      }} /></label>`}
    </form>
    ${list.length > 0 && html`<div class="terminal-tabs" role="tablist" aria-label=${t('terminal.sessions')}>${list.map(session => html`<span class="terminal-tab ${session === shown ? 'on' : ''} ${session.ended ? 'ended' : ''}">
      <button role="tab" aria-selected=${session === shown ? 'true' : 'false'} onClick=${() => setCurrent(session.id)}>${session.id} · ${session.title.slice(0, 40)}</button>
      <button class="ghost small" aria-label=${t('terminal.close', {name: session.title})} onClick=${() => close(session)}>${icon('close', 13)}</button></span>`)}</div>
      <div class="terminal-frame" ref=${frame}></div>`}
    ${!list.length && html`<${Empty} title=${running ? t('terminal.none') : t('container.notRunning')}><p>${running ? t('terminal.noneAbout') : ''}</p><//>`}
  </div>`;
}

Terminals.words = {
  en: {
    'terminal.command': 'Command',
    'terminal.user': 'User',
    'terminal.default': 'default',
    'terminal.open': 'Open',
    'terminal.attach': 'Attach',
    'terminal.noTty': 'The container has no terminal: its output and input are attached as they are',
    'terminal.search': 'Search in the terminal',
    'terminal.sessions': 'Terminals',
    'terminal.close': 'Close {name}',
    'terminal.none': 'No terminal is open',
    'terminal.noneAbout': 'A command runs with the confinement of the container.',
    'terminal.ended': 'ended with exit code {code}',
    'terminal.lost': 'the connection has ended',
    'terminal.input': 'Terminal input',
  },
  es: {
    'terminal.command': 'Orden',
    'terminal.user': 'Usuario',
    'terminal.default': 'por defecto',
    'terminal.open': 'Abrir',
    'terminal.attach': 'Conectar',
    'terminal.noTty': 'El contenedor no tiene terminal: su salida y su entrada se conectan tal cual',
    'terminal.search': 'Buscar en el terminal',
    'terminal.sessions': 'Terminales',
    'terminal.close': 'Cerrar {name}',
    'terminal.none': 'No hay ningún terminal abierto',
    'terminal.noneAbout': 'La orden se ejecuta con el confinamiento del contenedor.',
    'terminal.ended': 'terminado con código {code}',
    'terminal.lost': 'la conexión ha terminado',
    'terminal.input': 'Entrada del terminal',
  },
};
