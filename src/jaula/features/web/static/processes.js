// The processes of the host, with the namespaces in which each differs from its parent.

import { html, ErrorBox, useEffect, useRef, useState } from './ui.js';
import { get } from './api.js';
import { t } from './i18n.js';
import { observed } from './observed.js';
import { nameOf, treeRows } from './isolation.js';

const INTERVAL = 4000; // milliseconds between two readings
const MOST = 600; // rows

/** Ancestors of processes of containers stay open; the children of others are folded if many. */
export function ProcessTree({ selected, onClose }) {
  const [rows, setRows] = useState([]);
  const [error, setError] = useState(null);
  const folded = useRef(new Set());
  const document_ = useRef(null);
  const key = useRef('');

  const show = () => setRows(treeRows(document_.current.Processes, folded.current));
  const read = async () => {
    if (document.hidden) return;
    try {
      const found = await get('/jaula/processes');
      const seen = found.Processes.map((each) => `${each.Pid}:${each.Parent}:${each.Name}`).join();
      setError(null);
      if (seen === key.current) return;
      key.current = seen;
      document_.current = found;
      show();
    } catch (failure) {
      setError(failure);
    }
  };
  useEffect(() => {
    read();
    const timer = setInterval(read, INTERVAL);
    return () => clearInterval(timer);
  }, []);
  const fold = (pid) => {
    if (!folded.current.delete(pid)) folded.current.add(pid);
    show();
  };
  return html`<aside class="process-tree" aria-label=${t('tree.title')}>
    <header><div><p class="kicker">${t('tree.kicker')}</p><h2>${t('tree.title')}</h2></div>
      ${onClose ? html`<button type="button" class="quiet close" aria-label=${t('tree.close')} onClick=${onClose}>×</button>` : null}</header>
    <${ErrorBox} error=${error} />
    <p class="soft">${t('tree.note')}</p>
    <ol tabindex="0" aria-label=${t('tree.title')}>${rows.slice(0, MOST).map(({ process, depth, below, folded: closed }) => {
      const known = process.Container ? observed.containers.get(process.Container)?.entry : null;
      return html`<li key=${process.Pid} class=${`${process.Container ? 'inside' : ''} ${process.Container && process.Container === selected ? 'chosen' : ''}`}
          style=${{ paddingInlineStart: `${Math.min(depth, 14) * 0.9}rem` }}>
        ${below ? html`<button type="button" class="fold" aria-expanded=${!closed} aria-label=${`${process.Name} ${process.Pid}`}
          onClick=${() => fold(process.Pid)}>${closed ? '▸' : '▾'}</button>` : html`<i class="fold" aria-hidden="true">·</i>`}
        <span class="comm">${process.Name}</span> <span class="pid">${process.Pid}</span>
        ${known ? html`<a href=${`#/map?c=${process.Container.slice(0, 12)}`}>${nameOf(known)}</a>` : null}
        ${process.Changes.length ? html`<span class="namespaces">${process.Changes.map((kind) => html`<b>${kind}</b>`)}</span>` : null}</li>`;
    })}</ol>
    ${rows.length > MOST ? html`<p class="soft">${t('tree.more', { count: rows.length - MOST })}</p>` : null}
  </aside>`;
}
