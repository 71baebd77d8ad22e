// The shell of the web view: login, navigation, and one page at a time.
//
// THE INTERFACE OF A PAGE
//
// A page is one module in pages/ and one line in pages/index.js (path, place in the navigation).
// It exports
//
//   export const page = {
//     words: {en: {'stats.title': 'Statistics'}, es: {'stats.title': 'Estadísticas'}},
//     View: ({id, query}) => html`...`,
//   };
//
// * words: its texts, by keys that begin with the page's name. t(key, values) reads them. Every
//   key is in both languages (tests/unit/web/test_words.py).
// * View: a preact component. Properties: the parameters of the path (decoded) and 'query'
//   (URLSearchParams). It renders <PageHead title=...> first: the h1 takes the focus after a
//   navigation, and is the title of the window.
//
// The names that pages use:
//
// * ./ui.js: html, hooks, useQuery(path, {types, every}) for data that follows events, Table, Menu,
//   Tabs, Card, Facts, Badge, StateBadge, Cell, Search, Empty, ErrorBox, Bar, Copy, Dialog,
//   confirm(), toast(), attempt(), icon(name), useStored(key, initial), useConnection().
// * ./api.js: get, send, lines, stream, jsonStream, onEvent, onState. Paths are those of the
//   engine's API without a version: get('/containers/json'), get('/jaula/...').
// * ./router.js: current(), go(path), setQuery({...}), path('containers', id).
// * ./format.js: bytes, ago, date, number, shortId, containerName, shellWord.
// * style.css: the tokens at its head (--accent, --holds, --relaxed, --fails, --space-1 to 7,
//   --text-1 to 7, --radius) and classes of the parts above. A page that needs more has a sheet
//   pages/NAME.css, and awaits style('pages/NAME.css') of ./styles.js, so that nothing moves. No style attribute and no inline script: the CSP
//   forbids them; node.style.setProperty() in a ref is allowed.
// * Texts of the engine and of containers are hostile: render them as text (html`${x}`) only. There
//   is no innerHTML: Trusted Types forbid it.
// * ./shortcuts.js: shortcut(keys, word, run), a key of the page, listed by '?'. Returns a function
//   that removes it.

import {html, render, useEffect, useRef, useState, Dialog, Dialogs, PageHead, Toasts, Cell, icon, attempt, useConnection, ErrorBox} from './ui.js';
import {get, hasSession, load, setSession, view, loggedIn, onState} from './api.js';
import {addWords, language, setLanguage, t, LANGUAGES} from './i18n.js';
import {current, go, match} from './router.js';
import {GROUPS, HOME, PAGES} from './pages/index.js';
import {shortcut, shortcuts} from './shortcuts.js';

const LOGIN = 'jaula.login'; // in sessionStorage: the secret of a login with a provider
const loaded = new Map();

function useAddress() {
  const [address, setAddress] = useState(current());
  useEffect(() => {
    const change = () => setAddress(current());
    addEventListener('hashchange', change);
    return () => removeEventListener('hashchange', change);
  }, []);
  return address;
}

function find(path) {
  if (path === '/') return find(HOME.find(home => PAGES.some(page => page.path === home)));
  for (const entry of PAGES) {
    const parameters = match(entry.path, path);
    if (parameters) return {entry, parameters};
  }
  return null;
}

// -- login ---------------------------------------------------------------------------------------

function Login({methods, error: first}) {
  const [error, setError] = useState(first);
  const command = 'jaula web --open';
  return html`<main class="login" id="main">
    <div class="login-card">
      <${Cell} size=${72} layers=${['holds', 'holds', 'holds', 'holds']} />
      <h1>jaula</h1>
      <p>${t('login.how')}</p>
      <pre class="command">${command}</pre>
      ${methods?.certificate && html`<button class="primary" onClick=${async () => {
        try {
          setSession((await view('POST', '/login/certificate')).session);
          location.replace('/');
        } catch (problem) {
          setError(problem);
        }
      }}>${t('login.certificate')}</button>`}
      ${methods?.oidc && html`<button class="primary" onClick=${async () => {
        try {
          const {url, login} = await view('POST', '/login/oidc');
          sessionStorage.setItem(LOGIN, login);
          location.assign(url);
        } catch (problem) {
          setError(problem);
        }
      }}>${t('login.oidc', {name: methods.oidc})}</button>`}
      <${ErrorBox} error=${error} />
    </div>
  </main>`;
}

// -- shell ---------------------------------------------------------------------------------------

function Language({onChange}) {
  return html`<select class="language" aria-label=${t('language')} value=${language()} onChange=${event => {
    setLanguage(event.currentTarget.value);
    onChange();
  }}>${Object.entries(LANGUAGES).map(([code, name]) => html`<option value=${code}>${name}</option>`)}</select>`;
}

function Navigation({address, open, onClose, user, redraw}) {
  const here = find(address.path)?.entry;
  return html`<nav id="nav" class="nav ${open ? 'open' : ''}" aria-label=${t('nav.label')}>
    ${GROUPS.map(group => {
      const pages = PAGES.filter(page => page.nav?.group === group);
      return pages.length > 0 && html`<div class="nav-group"><h2>${t(`nav.group.${group}`)}</h2><ul>${pages.map(page => {
        const isHere = here && (here === page || (here.path.startsWith(`${page.path}/`) && page.path !== '/'));
        return html`<li><a href=${`#${page.path}`} aria-current=${isHere ? 'page' : undefined} onClick=${onClose}>${icon(page.nav.icon)}<span>${t(page.nav.word)}</span>${page.nav.key && html`<kbd aria-hidden="true">g ${page.nav.key}</kbd>`}</a></li>`;
      })}</ul></div>`;
    })}
    <div class="nav-foot"><span>${user}</span><${Language} onChange=${redraw} /></div>
  </nav>`;
}

function Help({onClose}) {
  const keys = [['?', t('keys.help')], ['/', t('keys.search')], ['t', t('keys.theme')], ['Esc', t('keys.close')],
    ...PAGES.filter(page => page.nav?.key).map(page => [`g ${page.nav.key}`, t(page.nav.word)]),
    ...shortcuts().map(({keys: name, word}) => [name, t(word)])];
  return html`<${Dialog} title=${t('keys.title')} onClose=${onClose}><dl class="keys">${keys.map(([key, text]) => html`<div><dt>${key.split(' ').map(part => html`<kbd>${part}</kbd>`)}</dt><dd>${text}</dd></div>`)}</dl><//>`;
}

function Page({address}) {
  const found = find(address.path);
  const [, again] = useState(0);
  const [error, setError] = useState(null);
  const key = found?.entry.path;
  useEffect(() => {
    setError(null);
    if (!found || loaded.has(key)) return;
    load(found.entry.load).then(
      ({page}) => {
        addWords(page.words || {});
        loaded.set(key, page);
        again(n => n + 1);
      },
      setError,
    );
  }, [key]);
  const shown = loaded.get(key);
  useEffect(() => {
    const title = document.querySelector('main h1');
    if (!title) return;
    document.title = `${title.textContent} · jaula`;
    if (!Page.first) {
      title.tabIndex = -1;
      title.focus({preventScroll: true});
      scrollTo(0, 0);
    }
    Page.first = false;
  }, [address.path, !!shown]);
  if (!found) return html`<${PageHead} title=${t('error.noPage')} /><p><a href="#/">${t('nav.home')}</a></p>`;
  if (error) return html`<${PageHead} title=${t('error.page')}><button onClick=${() => location.reload()}>${t('action.reload')}</button><//><${ErrorBox} error=${error} />`;
  if (!shown) return html`<div class="loading" aria-busy="true"></div>`;
  return html`<${shown.View} key=${`${key} ${Object.values(found.parameters)}`} ...${found.parameters} query=${address.query} />`;
}
Page.first = true;

function Shell({session}) {
  const address = useAddress();
  const connection = useConnection();
  const [nav, setNav] = useState(false);
  const [help, setHelp] = useState(false);
  const [, redraw] = useState(0);
  const [host, setHost] = useState('');
  const main = useRef();

  const toggleTheme = () => {
    const next = document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark';
    document.documentElement.dataset.theme = next;
    localStorage.setItem('jaula.theme', next);
    dispatchEvent(new CustomEvent('theme'));
    redraw(n => n + 1);
  };

  useEffect(() => {
    const show = () => get('/info').then(info => setHost(`${info.Name} · ${info.ServerVersion}`), () => {});
    show();
    return onState(state => state === 'up' && show());
  }, []);

  useEffect(() => {
    let prefix = '';
    const key = event => {
      const typing = event.target.closest?.('input, textarea, select, [contenteditable], .xterm');
      if (typing || event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) return;
      const keys = prefix ? `${prefix} ${event.key}` : event.key;
      prefix = '';
      const page = PAGES.find(entry => entry.nav?.key && `g ${entry.nav.key}` === keys);
      const own = shortcuts().find(entry => entry.keys === keys);
      if (keys === '?') setHelp(true);
      else if (keys === 't') toggleTheme();
      else if (keys === '/') document.querySelector('[data-search]')?.focus();
      else if (keys === 'g') prefix = 'g';
      else if (page) go(page.path);
      else if (own) own.run();
      else return;
      event.preventDefault();
    };
    addEventListener('keydown', key);
    return () => removeEventListener('keydown', key);
  }, []);

  return html`<div class="shell">
    <a class="skip" href="#main" onClick=${event => {
      event.preventDefault();
      main.current.focus();
    }}>${t('nav.skip')}</a>
    <header class="top">
      <button class="ghost burger" aria-expanded=${nav ? 'true' : 'false'} aria-controls="nav" aria-label=${t('nav.label')} onClick=${() => setNav(!nav)}>${icon('menu')}</button>
      <a class="brand" href="#/"><${Cell} size=${26} layers=${['holds', 'holds']} core=${connection === 'up' ? 'on' : 'off'} /><strong>jaula</strong></a>
      <span class="host">${host}</span>
      <span class="live ${connection}" role="status"><i></i><span>${t(`live.${connection}`)}</span></span>
      <span class="grow"></span>
      <button class="ghost" aria-label=${t('keys.title')} title=${t('keys.title')} onClick=${() => setHelp(true)}><kbd>?</kbd></button>
      <${Language} onChange=${() => redraw(n => n + 1)} />
      <button class="ghost" aria-label=${t('theme')} title=${t('theme')} onClick=${toggleTheme}>${icon('theme')}</button>
      <span class="user" title=${t('login.by', {method: session.method})}>${session.user}</span>
      <button class="ghost" aria-label=${t('login.out')} title=${t('login.out')} onClick=${async () => {
        if (!await attempt(() => view('POST', '/logout'))) return;
        setSession('');
        location.replace('/');
      }}>${icon('logout')}</button>
    </header>
    ${connection === 'down' && html`<div class="down" role="alert"><${Cell} size=${20} layers=${['fails', 'fails']} core="off" /> ${t('live.downLong')}</div>`}
    <${Navigation} address=${address} open=${nav} onClose=${() => setNav(false)} user=${session.user} redraw=${() => redraw(n => n + 1)} />
    ${nav && html`<div class="shade" onClick=${() => setNav(false)}></div>`}
    <main id="main" tabindex="-1" ref=${main}><${Page} key=${language()} address=${address} /></main>
    ${help && html`<${Help} onClose=${() => setHelp(false)} />`}
    <${Dialogs} /><${Toasts} />
  </div>`;
}

function App({first}) {
  const [session, setShown] = useState(first.session);
  const [methods, setMethods] = useState(first.methods);
  const connection = useConnection();
  useEffect(() => {
    if (connection !== 'out') return;
    setShown(null);
    setSession('');
    readSession().then(document_ => setMethods(document_.methods), () => {});
  }, [connection]);
  if (!session) return html`<${Login} methods=${methods} error=${first.error || (first.session && {message: t('login.ended')})} />`;
  return html`<${Shell} session=${session} />`;
}

// Returns the session of this browser, or the ways to log in. Throws an ApiError.
const readSession = () => view('GET', '/session');

// Finishes the login that the address of the page is for, and takes it out of the history.
//
// The code of a one-time link is in the fragment, so it is in no log and no referrer. The address of
// a provider's answer is worth nothing without the secret that the page stored before it went there.
async function logIn() {
  const {pathname, hash, search} = location;
  if (pathname.startsWith('/login')) history.replaceState(null, '', '/');
  if (pathname === '/login' && hash.length > 1) return view('POST', '/login', {code: hash.slice(1)});
  if (pathname !== '/login/oidc/callback') return null;
  const login = sessionStorage.getItem(LOGIN) || '';
  sessionStorage.removeItem(LOGIN);
  return view('POST', pathname, {login, answer: search.slice(1)});
}

async function begin() {
  const first = {session: null, methods: null, error: null};
  try {
    const begun = await logIn();
    if (begun) setSession(begun.session);
  } catch (error) {
    first.error = error;
  }
  const found = find(current().path);
  if (found) load(found.entry.load).catch(() => {}); // while the session is read; Page shows errors
  try {
    const document_ = await readSession();
    if (document_.user !== undefined) {
      first.session = document_;
      first.error = null;
      loggedIn();
    } else {
      if (hasSession() && !first.error) first.error = {message: t('login.ended')};
      setSession('');
      first.methods = document_.methods;
    }
  } catch (error) {
    first.error ||= error;
  }
  render(html`<${App} first=${first} />`, document.getElementById('app'));
  sessionStorage.removeItem('jaula.reloads');
}

shortcut('n', 'nav.create', () => go('/create'));
begin();
