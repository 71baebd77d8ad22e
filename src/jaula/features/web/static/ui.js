// Parts that pages share. Every value of the engine goes through preact as text, never as markup.
import {html, useEffect, useLayoutEffect, useMemo, useRef, useState} from './vendor/preact.js';
import {get, onEvent, onState, connectionState} from './api.js';
import {t} from './i18n.js';

export {html, useEffect, useLayoutEffect, useMemo, useRef, useState};
export {render, Component, createContext, useCallback, useContext, useReducer} from './vendor/preact.js';

const PATHS = {
  map: 'M3 3h18v18H3zM7 7h10v10H7zM11 11h2v2h-2z',
  containers: 'M4 7l8-4 8 4v10l-8 4-8-4zM4 7l8 4 8-4M12 11v10',
  images: 'M12 3l9 5-9 5-9-5zM3 12.5l9 5 9-5M3 17l9 5 9-5',
  networks: 'M12 4v6M5 20v-4h14v4M12 10v6M10 2h4v4h-4zM3 18h4v4H3zM17 18h4v4h-4z',
  volumes: 'M4 6c0-4 16-4 16 0v12c0 4-16 4-16 0zM4 6c0 4 16 4 16 0M4 12c0 4 16 4 16 0',
  secrets: 'M8 15a4 4 0 1 1 3-6.6L21 8v3h-3v3h-3l-3.6-1A4 4 0 0 1 8 15zM7 11h.01',
  builds: 'M14 6l4-4 4 4-4 4zM14 6L3 17v4h4L18 10',
  add: 'M12 4v16M4 12h16',
  stats: 'M4 20V10M10 20V4M16 20v-7M22 20H2',
  events: 'M3 12h4l3-8 4 16 3-8h4',
  verify: 'M3 3h18v18H3zM7 7h10v10H7zM9.5 12l2 2 3.5-4',
  reach: 'M5 8a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM19 22a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM19 8a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM8 5h8M7 7.5l10 9',
  processes: 'M6 4h4v4H6zM14 10h4v4h-4zM14 17h4v4h-4zM8 8v11h6M8 12h6',
  records: 'M5 3h10l4 4v14H5zM9 12h6M9 16h6',
  profiles: 'M12 3l8 3v6c0 5-4 8-8 9-4-1-8-4-8-9V6z',
  why: 'M9 9a3 3 0 1 1 4 3c-1 .5-1 1-1 2M12 18h.01M12 22a10 10 0 1 1 0-20 10 10 0 0 1 0 20z',
  audit: 'M4 12l5 5L20 6',
  projects: 'M3 6h7l2 3h9v10H3z',
  pods: 'M5 8a7 5 0 0 1 14 0v8a7 5 0 0 1-14 0zM9 10v5M15 10v5',
  start: 'M7 4l13 8-13 8z',
  stop: 'M6 6h12v12H6z',
  pause: 'M8 5v14M16 5v14',
  restart: 'M20 12a8 8 0 1 1-2.5-5.8M20 3v5h-5',
  kill: 'M6 6l12 12M18 6L6 18',
  remove: 'M5 7h14M9 7V4h6v3M7 7l1 14h8l1-14',
  rename: 'M4 20l1-5L16 4l4 4L9 19z',
  terminal: 'M4 5l6 7-6 7M12 19h8',
  logs: 'M4 5h16M4 10h16M4 15h10M4 20h13',
  files: 'M4 4h6l2 3h8v13H4z',
  file: 'M6 3h8l4 4v14H6zM14 3v4h4',
  inspect: 'M9 4C5 4 7 11 3 12c4 1 2 8 6 8M15 4c4 0 2 7 6 8-4 1-2 8-6 8',
  more: 'M12 5h.01M12 12h.01M12 19h.01',
  search: 'M11 18a7 7 0 1 1 0-14 7 7 0 0 1 0 14zM16 16l5 5',
  close: 'M5 5l14 14M19 5L5 19',
  menu: 'M3 6h18M3 12h18M3 18h18',
  theme: 'M12 3a9 9 0 1 0 9 9 7 7 0 0 1-9-9z',
  logout: 'M10 4H4v16h6M15 8l4 4-4 4M19 12H9',
  copy: 'M9 9h11v11H9zM15 9V4H4v11h5',
  download: 'M12 3v12M7 10l5 5 5-5M4 21h16',
  upload: 'M12 16V4M7 9l5-5 5 5M4 21h16',
  tag: 'M3 3h8l10 10-8 8L3 11zM7.5 7.5h.01',
  open: 'M9 6l6 6-6 6',
};

export const icon = (name, size = 18) => html`<svg class="icon" width=${size} height=${size} viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="1.7" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true"><path d=${PATHS[name] || PATHS.more} /></svg>`;

// The mark of the view: an enclosure in an enclosure. 'layers' are 'holds', 'relaxed' or 'fails'.
export function Cell({layers = ['holds', 'holds', 'holds'], size = 28, core = 'on', label}) {
  const step = 10 / layers.length;
  const width = Math.min(1.6, step * 0.42);
  return html`<svg class="cell" width=${size} height=${size} viewBox="0 0 32 32" role=${label ? 'img' : undefined} aria-label=${label} aria-hidden=${label ? undefined : 'true'}>
    ${layers.map((state, i) => {
      const at = 2 + i * step;
      return html`<rect key=${i} class="layer ${state}" x=${at} y=${at} width=${32 - 2 * at} height=${32 - 2 * at} rx=${Math.max(1.5, 7 - i * step * 0.6)} stroke-width=${width} />`;
    })}
    <rect class="core ${core}" x="13" y="13" width="6" height="6" rx="1.5" stroke-width=${width} />
  </svg>`;
}

// -- data --------------------------------------------------------------------------------------

// Reads GET path, again at events of these types and when the engine is back.
// Returns {data, error, loading, reload}. A path of null reads nothing.
export function useQuery(path, {types = [], every = 0} = {}) {
  const [result, setResult] = useState({data: null, error: null, loading: true, path});
  const running = useRef({number: 0, timer: 0});
  const load = useMemo(() => () => {
    if (!path) return;
    const number = ++running.current.number;
    get(path).then(
      data => number === running.current.number && setResult({data, error: null, loading: false, path}),
      error => number === running.current.number && setResult(old => ({data: old.path === path ? old.data : null, error, loading: false, path})),
    );
  }, [path]);
  useEffect(() => {
    load();
    const soon = () => {
      if (running.current.timer) return;
      running.current.timer = setTimeout(() => {
        running.current.timer = 0;
        load();
      }, 250);
    };
    const offs = [onState(state => state === 'up' && load())];
    if (types.length) offs.push(onEvent(types, soon));
    const timer = every ? setInterval(() => document.visibilityState === 'visible' && load(), every) : 0;
    return () => {
      running.current.number++;
      clearTimeout(running.current.timer);
      running.current.timer = 0;
      clearInterval(timer);
      offs.forEach(off => off());
    };
  }, [load, types.join(), every]);
  const current = result.path === path ? result : {data: null, error: null, loading: true};
  return {...current, reload: load};
}

export function useConnection() {
  const [state, setState] = useState(connectionState());
  useEffect(() => {
    setState(connectionState());
    return onState(setState);
  }, []);
  return state;
}

// A value that is kept in this browser.
export function useStored(key, initial) {
  const name = `jaula.${key}`;
  const [value, setValue] = useState(() => {
    try {
      return JSON.parse(localStorage.getItem(name)) ?? initial;
    } catch {
      return initial;
    }
  });
  return [value, next => {
    localStorage.setItem(name, JSON.stringify(next));
    setValue(next);
  }];
}

// -- messages ------------------------------------------------------------------------------------

let toastId = 0;
const toasts = new Set();
let showToasts = () => {};

// Shows a message for some seconds, and reads it out. kind: 'done' or 'error'.
export function toast(text, kind = 'done') {
  const entry = {id: ++toastId, text: String(text), kind};
  toasts.add(entry);
  showToasts();
  setTimeout(() => {
    toasts.delete(entry);
    showToasts();
  }, kind === 'error' ? 12000 : 4000);
}

export function Toasts() {
  const [, again] = useState(0);
  useEffect(() => {
    showToasts = () => again(n => n + 1);
  }, []);
  return html`<div class="toasts" aria-live="polite" role="status">
    ${[...toasts].map(entry => html`<div key=${entry.id} class="toast ${entry.kind}">
      <span>${entry.text}</span>
      <button class="ghost small" aria-label=${t('action.close')} onClick=${() => {
        toasts.delete(entry);
        showToasts();
      }}>${icon('close', 14)}</button></div>`)}
  </div>`;
}

// Runs an action, shows its error, and returns whether it succeeded.
export async function attempt(action, done) {
  try {
    await action();
    if (done) toast(done);
    return true;
  } catch (error) {
    toast(error.message, 'error');
    return false;
  }
}

// -- dialogs -------------------------------------------------------------------------------------

let showDialog = () => {};

// Asks before an action. Resolves to false, or to the values of the fields ({} without any).
//   await confirm({title, text, action, danger, fields: [{name, label, type, value}]})
export const confirm = options => new Promise(resolve => showDialog({...options, resolve}));

export function Dialogs() {
  const [dialog, setDialog] = useState(null);
  useEffect(() => {
    showDialog = setDialog;
  }, []);
  if (!dialog) return null;
  const finish = value => {
    setDialog(null);
    dialog.resolve(value);
  };
  return html`<${Dialog} title=${dialog.title} onClose=${() => finish(false)}>
    <form onSubmit=${event => {
      event.preventDefault();
      const form = event.currentTarget;
      const values = {};
      for (const field of dialog.fields || [])
        values[field.name] = field.type === 'checkbox' ? form.elements[field.name].checked : form.elements[field.name].value;
      finish(values);
    }}>
      ${dialog.text && html`<p>${dialog.text}</p>`}
      ${dialog.detail && html`<pre class="detail">${dialog.detail}</pre>`}
      ${(dialog.fields || []).map((field, i) => field.type === 'checkbox'
        ? html`<label class="check"><input type="checkbox" name=${field.name} checked=${field.value} /> ${field.label}</label>`
        : html`<label class="field"><span>${field.label}</span>${field.type === 'textarea'
          ? html`<textarea name=${field.name} rows="6" autofocus=${i === 0} required=${!field.optional}>${field.value || ''}</textarea>`
          : html`<input name=${field.name} type=${field.type || 'text'} value=${field.value || ''} required=${!field.optional} autocomplete="off" spellcheck=${false} autofocus=${i === 0} />`}</label>`)}
      <footer class="buttons">
        <button type="button" class="ghost" onClick=${() => finish(false)}>${t('action.cancel')}</button>
        <button class=${dialog.danger ? 'danger' : 'primary'} autofocus=${!dialog.fields?.length}>${dialog.action || t('action.ok')}</button>
      </footer>
    </form>
  <//>`;
}

export function Dialog({title, onClose, children, wide}) {
  const ref = useRef();
  useLayoutEffect(() => {
    const before = document.activeElement;
    ref.current.showModal();
    (ref.current.querySelector('[autofocus]') || ref.current.querySelector('input, textarea, button'))?.focus();
    return () => before?.focus?.();
  }, []);
  return html`<dialog ref=${ref} class=${wide ? 'wide' : ''} aria-labelledby="dialog-title" onCancel=${event => {
    event.preventDefault();
    onClose();
  }} onClick=${event => event.target === ref.current && onClose()}>
    <div class="sheet"><header><h2 id="dialog-title">${title}</h2>
    <button type="button" class="ghost" aria-label=${t('action.close')} onClick=${onClose}>${icon('close')}</button></header>
    ${children}</div>
  </dialog>`;
}

// -- parts of pages --------------------------------------------------------------------------------

// The head of a page: one h1, what it is about, and its actions.
export function PageHead({title, about, children, back}) {
  return html`<header class="page-head">
    <div class="page-title">${back && html`<a class="back" href=${back.href}>${icon('open', 14)} ${back.text}</a>`}
      <h1>${title}</h1>${about && html`<p class="about">${about}</p>`}</div>
    <div class="page-actions">${children}</div>
  </header>`;
}

export function Search({value, onInput, label}) {
  return html`<label class="search">${icon('search', 16)}<span class="hidden">${label || t('action.search')}</span>
    <input type="search" value=${value} placeholder=${label || t('action.search')} data-search onInput=${event => onInput(event.currentTarget.value)} autocomplete="off" spellcheck=${false} /></label>`;
}

export const Badge = ({kind = 'plain', children, title}) => html`<span class="badge ${kind}" title=${title}>${children}</span>`;

const STATES = {running: 'holds', paused: 'relaxed', restarting: 'relaxed', exited: 'plain', created: 'plain', dead: 'fails', removing: 'relaxed'};
export const StateBadge = ({state, text}) => html`<span class="state ${STATES[state] || 'plain'}"><i></i>${text || t(`state.${state}`)}</span>`;

export const Id = ({value}) => html`<code class="id" title=${value}>${String(value || '').replace(/^sha256:/, '').slice(0, 12)}</code>`;

export function Copy({text, label}) {
  const [done, setDone] = useState(false);
  return html`<button class="ghost small copy" aria-label=${label || t('action.copy')} title=${label || t('action.copy')} onClick=${async event => {
    event.preventDefault();
    try {
      await navigator.clipboard.writeText(text); // absent without TLS, except on loopback
    } catch {
      toast(t('error.copy'), 'error');
      return;
    }
    setDone(true);
    setTimeout(() => setDone(false), 1500);
  }}>${icon(done ? 'audit' : 'copy', 14)}</button>`;
}

export function Empty({children, title, mark = true}) {
  return html`<div class="empty">${mark && html`<${Cell} size=${56} core="off" layers=${['faint', 'faint', 'faint']} />`}<p class="empty-title">${title}</p><div>${children}</div></div>`;
}

export function ErrorBox({error}) {
  if (!error) return null;
  return html`<div class="error-box" role="alert"><strong>${t('error.title')}</strong> <span>${error.message}</span></div>`;
}

// A table: columns are {key, title, render(row), sort(row), align, hide}; 'hide' is 'phone'.
// 'rowKey' gives the key of a row, 'href' where a click on it leads, 'actions' its buttons.
export function Table({columns, rows, rowKey, href, actions, label, selected, onSelect, empty, sortBy}) {
  const [order, setOrder] = useState(sortBy || {column: -1, down: false});
  const sorted = useMemo(() => {
    const column = columns[order.column];
    if (!column?.sort) return rows;
    const values = new Map(rows.map(row => [row, column.sort(row)]));
    return [...rows].sort((a, b) => {
      const [x, y] = [values.get(a), values.get(b)];
      const sign = typeof x === 'string' ? x.localeCompare(y, undefined, {numeric: true}) : x - y;
      return order.down ? -sign : sign;
    });
  }, [rows, order, columns]);
  if (!rows.length) return empty || null;
  return html`<div class="table-frame"><table aria-label=${label}>
    <thead><tr>
      ${onSelect && html`<th class="pick"><input type="checkbox" aria-label=${t('action.selectAll')} checked=${rows.every(row => selected.has(rowKey(row)))} onChange=${event => onSelect(new Set(event.currentTarget.checked ? rows.map(rowKey) : []))} /></th>`}
      ${columns.map((column, i) => html`<th scope="col" class="${column.align || ''} ${column.hide || ''}" aria-sort=${order.column === i ? (order.down ? 'descending' : 'ascending') : undefined}>
        ${column.sort ? html`<button class="sort" onClick=${() => setOrder({column: i, down: order.column === i && !order.down})}>${column.title}<i>${order.column === i ? (order.down ? '↓' : '↑') : ''}</i></button>` : column.title}</th>`)}
      ${actions && html`<th class="actions"><span class="hidden">${t('action.actions')}</span></th>`}
    </tr></thead>
    <tbody>${sorted.map(row => html`<tr key=${rowKey(row)} class=${href ? 'linked' : ''} onClick=${href && (event => {
      if (!event.target.closest('a, button, input, .menu') && !getSelection().toString()) location.hash = href(row);
    })}>
      ${onSelect && html`<td class="pick"><input type="checkbox" aria-label=${t('action.select', {name: rowKey(row).slice(0, 40)})} checked=${selected.has(rowKey(row))} onChange=${event => {
        const next = new Set(selected);
        if (event.currentTarget.checked) next.add(rowKey(row));
        else next.delete(rowKey(row));
        onSelect(next);
      }} /></td>`}
      ${columns.map(column => html`<td class="${column.align || ''} ${column.hide || ''}" data-title=${column.title}>${column.render(row)}</td>`)}
      ${actions && html`<td class="actions">${actions(row)}</td>`}
    </tr>`)}</tbody>
  </table></div>`;
}

// A menu of actions: items are {text, icon, run, danger, disabled, href} or null.
export function Menu({items, label, iconName = 'more', text}) {
  const [open, setOpen] = useState(false);
  const ref = useRef();
  useEffect(() => {
    if (!open) return undefined;
    ref.current.querySelector('[role=menuitem]')?.focus();
    const close = event => !ref.current?.contains(event.target) && setOpen(false);
    addEventListener('pointerdown', close);
    return () => removeEventListener('pointerdown', close);
  }, [open]);
  const move = (event, step) => {
    const all = [...ref.current.querySelectorAll('[role=menuitem]:not([disabled])')];
    const at = all.indexOf(document.activeElement);
    all[(at + step + all.length) % all.length]?.focus();
    event.preventDefault();
  };
  return html`<div class="menu" ref=${ref} onKeyDown=${event => {
    if (!open) return;
    if (event.key === 'Escape') {
      setOpen(false);
      ref.current.querySelector('button').focus();
      event.stopPropagation();
    } else if (event.key === 'ArrowDown') move(event, 1);
    else if (event.key === 'ArrowUp') move(event, -1);
  }}>
    <button class="ghost" aria-haspopup="menu" aria-expanded=${open ? 'true' : 'false'} aria-label=${label} title=${label} onClick=${() => setOpen(!open)}>${icon(iconName)}${text && html`<span>${text}</span>`}</button>
    ${open && html`<div class="menu-list" role="menu">${items.filter(Boolean).map(item => html`<button role="menuitem" class=${item.danger ? 'danger-text' : ''} disabled=${item.disabled} onClick=${() => {
      setOpen(false);
      item.run();
    }}>${item.icon && icon(item.icon, 16)}<span>${item.text}</span></button>`)}</div>`}
  </div>`;
}

// Tabs that live in the address: items are {id, text, icon}.
export function Tabs({items, current, href, label}) {
  const nav = useRef();
  useEffect(() => nav.current.querySelector('[aria-current]')?.scrollIntoView({block: 'nearest', inline: 'center'}), [current]);
  return html`<nav class="tabs" aria-label=${label} ref=${nav}>${items.map(item => html`<a href=${href(item.id)} aria-current=${item.id === current ? 'page' : undefined}>${item.icon && icon(item.icon, 16)}<span>${item.text}</span></a>`)}</nav>`;
}

export function Card({title, children, actions, className = ''}) {
  return html`<section class="card ${className}">${title && html`<header><h2>${title}</h2><div>${actions}</div></header>`}${children}</section>`;
}

const isAbsent = value => value === null || value === undefined || value === '' || value === false || (Array.isArray(value) && !value.length);

// A list of terms: rows are [term, value]; an absent or empty value is left out.
export function Facts({rows}) {
  return html`<dl class="facts">${rows.filter(([, value]) => !isAbsent(value)).map(([term, value]) => html`<div><dt>${term}</dt><dd>${value}</dd></div>`)}</dl>`;
}

export function Bar({value, limit, label, kind = ''}) {
  const part = limit > 0 ? Math.min(1, value / limit) : 0;
  return html`<div class="bar ${kind}" role="img" aria-label=${label}><i ref=${node => node && (node.style.width = `${(part * 100).toFixed(1)}%`)}></i></div>`;
}
