// The map: every container of the host as nested layers of isolation, live.

import {
  html, ErrorBox, PageHead, useEffect, useMemo, useRef, useState, useStored,
} from '../ui.js';
import { t } from '../i18n.js';
import { style } from '../styles.js';
import { setQuery } from '../router.js';
import { observed, F } from '../observed.js';
import { bestGrouping, group, GROUPS } from '../groups.js';
import { nameOf, shellKey, shells, sortLayers, worst, LAYERS } from '../isolation.js';
import { Evidence } from '../evidence.js';
import { ProcessTree } from '../processes.js';
import words from '../i18n/map.js';

await style('pages/map.css');

/** Return the address of the evidence for a container, or for one of its layers. */
export const mapHref = (id, layer = '') => `#/map?c=${id.slice(0, 12)}${layer ? `&layer=${layer}` : ''}`;

const SIZES = ['small', 'medium', 'large'];
const LEVELS = 6; // of brightness of a core
const FILTERS = ['all', 'holds', 'relaxed', 'fails'];

/** Return the size of tiles that suits a number of containers. Pure. */
export function sizeFor(number) {
  if (number <= 6) return 'large';
  return number <= 40 ? 'medium' : 'small';
}

function standingOf(known) {
  const layers = known?.isolation?.Layers;
  return layers ? worst(layers) : 'unknown';
}

const NOT_READ = LAYERS.slice(0, 15).map((Layer) => ({ Layer, Verdict: 'holds' }));

function Tile({ entry, isolation, size, current }) {
  const layers = isolation ? sortLayers(isolation.Layers) : null;
  const verdict = layers ? worst(layers) : 'unknown';
  const paths = shells(layers ?? NOT_READ);
  const bad = layers?.filter((each) => each.Verdict !== 'holds') ?? [];
  const changed = isolation?.Changes.length ?? 0;
  return html`<a class="tile ${verdict} ${layers ? '' : 'reading'}" href=${mapHref(entry.Id)}
      data-id=${entry.Id} tabindex=${current ? 0 : -1}>
    <svg class="shells" viewBox="0 0 100 100" aria-hidden="true" focusable="false">
      <rect class="core" x="36" y="36" width="28" height="28" rx="5" />
      <path class="holds" d=${paths.holds} /><path class="unknown" d=${paths.unknown} />
      <path class="relaxed" d=${paths.relaxed} /><path class="fails" d=${paths.fails} />
      <rect class="work" x="36" y="36" width="28" height="28" rx="5" />
    </svg>
    <span class="name">${nameOf(entry)}</span>
    <span class="note ${size === 'small' ? 'hidden' : ''}">${
      !layers ? t('map.reading')
        : bad.length ? bad.map((each) => html`<b class=${each.Verdict}>${each.Layer}<span class="hidden"> ${t(`verdict.${each.Verdict}`)}</span></b> `)
        : t('map.layershold', { layers: layers.length })}</span>
    ${changed && size !== 'small' ? html`<span class="changed">${t('map.changed', { count: changed })}</span>` : null}
  </a>`;
}

/** A tile that is drawn again only if its container has changed. */
function MemoTile(props) {
  const { entry, isolation, size, current } = props;
  const key = `${nameOf(entry)}|${isolation ? shellKey(isolation.Layers) : ''}|${isolation?.Changes.length}|${size}|${current}`;
  return useMemo(() => Tile(props), [entry.Id, key]);
}

/** Show the CPU usage of each container in the core of its tile, without drawing anything again. */
function pulse(root) {
  if (!root) return;
  for (const tile of root.querySelectorAll('.tile')) {
    const values = observed.latest(tile.dataset.id);
    const level = values ? Math.min(1, Math.sqrt(values[F.cpu] / 100)) : 0;
    const step = Math.round(level * LEVELS) / LEVELS;
    if (tile.pulse === step) continue;
    tile.pulse = step;
    tile.work ??= tile.querySelector('.work');
    tile.work.style.opacity = String(step);
  }
}

/** Move the focus among tiles by the arrow keys: along the row, or to the nearest tile of another row. */
function moveFocus(event, root) {
  const tiles = [...root.querySelectorAll('.tile')];
  const at = tiles.indexOf(document.activeElement);
  if (at < 0) return;
  let next = -1;
  if (event.key === 'ArrowRight') next = at + 1;
  else if (event.key === 'ArrowLeft') next = at - 1;
  else if (event.key === 'Home') next = 0;
  else if (event.key === 'End') next = tiles.length - 1;
  else if (event.key === 'ArrowDown' || event.key === 'ArrowUp') next = nearest(tiles, at, event.key === 'ArrowDown');
  else return;
  event.preventDefault();
  if (!tiles[next]) return;
  for (const tile of tiles) tile.tabIndex = -1;
  tiles[next].tabIndex = 0;
  tiles[next].focus();
}

function nearest(tiles, at, down) {
  const own = tiles[at].getBoundingClientRect();
  let best = -1;
  let least = Infinity;
  tiles.forEach((tile, index) => {
    const box = tile.getBoundingClientRect();
    const rows = down ? box.top - own.top : own.top - box.top;
    if (rows < own.height / 2) return;
    const distance = rows * 10 + Math.abs(box.left - own.left);
    if (distance < least) { least = distance; best = index; }
  });
  return best;
}

function Verdict({ entries, filter, setFilter }) {
  const counts = { all: entries.length, holds: 0, relaxed: 0, fails: 0, unknown: 0 };
  for (const entry of entries) counts[standingOf(observed.containers.get(entry.Id))] += 1;
  const pending = entries.filter((entry) => !observed.containers.get(entry.Id)?.isolation).length;
  const standing = counts.fails ? 'fails' : counts.unknown > pending ? 'unknown' : pending ? 'reading'
    : counts.relaxed ? 'relaxed' : 'holds';
  const unread = counts.unknown - pending;
  return html`<div class="standing ${standing}">
    <p class="sentence" role="status">${
      !entries.length ? t('map.none')
        : pending ? t('map.progress', { done: entries.length - pending, all: entries.length })
        : t(`map.standing.${standing}`, { ...counts, unknown: unread })}</p>
    <div class="filters" role="group" aria-label=${t('map.filter')}>
      ${FILTERS.map((name) => html`<button type="button" class="chip ${name}" aria-pressed=${filter === name}
        onClick=${() => setFilter(name)}><i aria-hidden="true"></i>${t(`map.filter.${name}`)}
        <span class="count">${name === 'fails' ? counts.fails + unread : counts[name]}</span></button>`)}
    </div></div>`;
}

function Changes() {
  if (!observed.changes.length) return null;
  return html`<section class="changes" aria-label=${t('map.changes')}>
    <h2>${t('map.changes')}</h2>
    <ol>${observed.changes.slice(0, 8).map((each) => html`<li key=${each.container + each.Id + each.Time}>
      <time datetime=${each.Time}>${each.Time.slice(11, 19)}</time>
      <a href=${mapHref(each.container, each.Layer)}>${each.name}</a>
      <span class="row">${each.Id}</span>
      <span class="word ${each.Before.Verdict}">${t(`verdict.${each.Before.Verdict}`)}</span>
      <span aria-hidden="true">→</span>
      <span class="word ${each.After.Verdict}">${t(`verdict.${each.After.Verdict}`)}</span>
      <span class="soft">${each.After.Effective || each.After.Requested}</span></li>`)}</ol></section>`;
}

/** All containers as a table: what the drawing shows, in words. */
function Table({ entries }) {
  const layers = [...new Set(entries.flatMap((entry) =>
    sortLayers(observed.containers.get(entry.Id)?.isolation?.Layers ?? []).map((each) => each.Layer)))];
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${t('map.table')}><table class="layers-table">
    <caption class="hidden">${t('map.table')}</caption>
    <thead><tr><th scope="col">${t('map.container')}</th><th scope="col">${t('map.verdict')}</th>
      ${layers.map((name) => html`<th scope="col">${name}</th>`)}</tr></thead>
    <tbody>${entries.map((entry) => {
      const isolation = observed.containers.get(entry.Id)?.isolation;
      const byName = new Map((isolation?.Layers ?? []).map((each) => [each.Layer, each]));
      const verdict = isolation ? worst(isolation.Layers) : 'unknown';
      return html`<tr key=${entry.Id}><th scope="row"><a href=${mapHref(entry.Id)}>${nameOf(entry)}</a></th>
        <td class="word ${verdict}">${isolation ? t(`verdict.${verdict}`) : t('map.reading')}</td>
        ${layers.map((name) => {
          const layer = byName.get(name);
          if (!layer) return html`<td>–</td>`;
          const bad = layer.Fails + layer.Unknown + layer.Relaxed;
          return html`<td class="word ${layer.Verdict}">${bad ? `${bad} ${t(`verdict.${layer.Verdict}`)}` : layer.Holds}</td>`;
        })}</tr>`;
    })}</tbody></table></div>`;
}

function MapPage({ query }) {
  const params = { id: query.get('c'), layer: query.get('layer') };
  const [, redraw] = useState(0);
  const [filter, setFilter] = useState('all');
  const [way, setWay] = useStored('map.group', '');
  const [zoom, setZoom] = useState('');
  const [news, setNews] = useState('');
  const [view, setView] = useState('map');
  const [tree, setTree] = useState(window.matchMedia('(min-width: 90rem)').matches);
  const root = useRef(null);

  useEffect(() => {
    let frame = 0;
    return observed.subscribe((kind, id) => {
      if (kind === 'stats') { requestAnimationFrame(() => pulse(root.current)); return; }
      if (kind === 'isolation') setNews((before) => announcement(id) || before);
      if (!frame) frame = requestAnimationFrame(() => { frame = 0; redraw((n) => n + 1); });
    });
  }, []);
  useEffect(() => pulse(root.current));

  const entries = observed.entries();
  const shown = filter === 'all' ? entries : entries.filter((entry) => {
    const standing = standingOf(observed.containers.get(entry.Id));
    return standing === filter || (filter === 'fails' && standing === 'unknown');
  });
  const chosen = way || bestGrouping(entries);
  const size = zoom || sizeFor(entries.length);
  const step = (by) => setZoom(SIZES[Math.max(0, Math.min(2, SIZES.indexOf(size) + by))]);
  const selected = params.id ? entries.find((entry) => entry.Id.startsWith(params.id)) : null;
  const groups = group(shown, chosen);
  const first = selected?.Id ?? groups[0]?.[1][0]?.Id;

  const onKey = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === '+' || event.key === '=') step(1);
    else if (event.key === '-') step(-1);
    else moveFocus(event, root.current);
  };

  return html`<div class="map-page ${selected ? 'with-evidence' : ''} ${tree ? 'with-tree' : ''}">
    <${PageHead} title=${t('map.title')}><div class="map-tools">
        <label>${t('map.group')} <select value=${chosen} onChange=${(event) => setWay(event.target.value)}>
          ${Object.keys(GROUPS).map((name) => html`<option value=${name}>${t(`map.group.${name}`)}</option>`)}</select></label>
        <div class="segments" role="group" aria-label=${t('map.view')}>
          ${['map', 'table'].map((name) => html`<button type="button" aria-pressed=${view === name}
            onClick=${() => setView(name)}>${t(`map.view.${name}`)}</button>`)}</div>
        <div class="segments zoom" role="group" aria-label=${t('map.zoom')}>
          <button type="button" aria-label=${t('map.smaller')} disabled=${size === 'small'} onClick=${() => step(-1)}>−</button>
          <button type="button" aria-label=${t('map.larger')} disabled=${size === 'large'} onClick=${() => step(1)}>+</button></div>
        <button type="button" class="toggle" aria-pressed=${tree} onClick=${() => setTree(!tree)}>${t('map.tree')}</button>
      </div><//>
    <${Verdict} entries=${entries} filter=${filter} setFilter=${setFilter} />
    <p class="hidden" role="status">${news}</p>
    <${ErrorBox} error=${observed.error ? { message: observed.error } : null} />
    <div class="map-body">
      <div class="map-host" role=${view === 'map' ? 'application' : null} aria-label=${view === 'map' ? t('map.keys') : null}
          onKeyDown=${view === 'map' ? onKey : null} ref=${root}>
        <p class="map-host-name" aria-hidden="true">${t('map.host')}</p>
        ${view === 'table' ? html`<${Table} entries=${shown} />`
          : html`<div class="groups">${groups.map(([name, members]) => html`<section class="group" key=${name} aria-label=${name || t('map.ungrouped')}>
            ${chosen === 'none' ? null : html`<h2>${name || t('map.ungrouped')} <span class="count">${members.length}</span></h2>`}
            <div class="tiles ${size}">${members.map((entry) => html`<${MemoTile} key=${entry.Id} entry=${entry}
              isolation=${observed.containers.get(entry.Id)?.isolation} size=${size} current=${entry.Id === first} />`)}</div>
          </section>`)}</div>`}
        ${observed.ready && !entries.length ? html`<p class="empty">${t('map.empty')}</p>` : null}
      </div>
      ${selected ? html`<${Evidence} key=${selected.Id} id=${selected.Id} name=${nameOf(selected)} layer=${params.layer}
        version=${observed.containers.get(selected.Id)?.isolation?.Time} onClose=${() => setQuery({ c: '', layer: '' })} />` : null}
      ${tree ? html`<${ProcessTree} selected=${selected?.Id} onClose=${() => setTree(false)} />` : null}
    </div>
    <${Changes} />
  </div>`;
}

const announced = new Map(); // by id: the number of changes

/** Return what a screen reader says about new changes of a container, '' for none. */
function announcement(id) {
  const isolation = observed.containers.get(id)?.isolation;
  const number = isolation?.Changes.length ?? 0;
  const before = announced.get(id);
  announced.set(id, number);
  if (before === undefined || number <= before) return '';
  const last = isolation.Changes.at(-1);
  return `${isolation.Name}: ${last.Id} ${t(`verdict.${last.After.Verdict}`)}`;
}

export const page = { words, View: MapPage };
