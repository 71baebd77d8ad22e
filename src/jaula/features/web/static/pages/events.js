// Events of the engine, live, with filters.

import { html, ErrorBox, PageHead, Search, Empty, useEffect, useRef, useState } from '../ui.js';
import { lines, onEvent } from '../api.js';
import { language, t } from '../i18n.js';
import { style } from '../styles.js';
import { setQuery } from '../router.js';
import words from '../i18n/map.js';

await style('pages/map.css');

const KEPT = 1000;
const SHOWN = 300;
const RECENT = 3600; // seconds of kept events that are read at first
const BAD = ['oom', 'die', 'kill', 'drift', 'isolation-changed', 'honeypot'];

/** Return the text that a filter is compared with. Pure. */
export function eventText(event) {
  const attributes = Object.entries(event.Actor?.Attributes ?? {}).map(([name, value]) => `${name}=${value}`);
  return [event.Type, event.Action, event.Actor?.ID, ...attributes].join(' ').toLowerCase();
}

function details(event) {
  return Object.entries(event.Actor?.Attributes ?? {}).filter(([name]) => !['name', 'image'].includes(name) && !name.startsWith('com.docker.compose'))
    .map(([name, value]) => `${name}=${value}`).join('  ');
}

const nano = (event) => event.timeNano ?? event.time * 1e9;

function EventsPage({ query }) {
  const [events, setEvents] = useState([]);
  const [paused, setPaused] = useState(false);
  const [error, setError] = useState(null);
  const waiting = useRef([]);
  const pending = useRef([]);
  const frame = useRef(0);
  const hold = useRef(false);
  hold.current = paused;
  const type = query.get('type') ?? '';
  const text = query.get('q') ?? '';

  useEffect(() => {
    let ended = false;
    const merge = (more) => setEvents((before) => {
      const seen = new Set(before.map((each) => `${nano(each)} ${each.Actor?.ID}`));
      const fresh = more.filter((each) => !seen.has(`${nano(each)} ${each.Actor?.ID}`));
      return [...fresh, ...before].sort((a, b) => nano(b) - nano(a)).slice(0, KEPT);
    });
    const flush = () => {
      frame.current = 0;
      const arrived = pending.current;
      pending.current = [];
      if (hold.current) { waiting.current = [...arrived, ...waiting.current].slice(0, KEPT); setPaused((now) => now); return; }
      merge(arrived);
    };
    const off = onEvent([], (event) => {
      pending.current.unshift(event);
      if (pending.current.length > KEPT) pending.current.length = KEPT;
      frame.current ||= setTimeout(flush, 100);
    });
    (async () => {
      const now = Math.floor(Date.now() / 1000);
      const found = [];
      try {
        for await (const event of lines('GET', `/events?since=${now - RECENT}&until=${now}`)) found.unshift(event);
      } catch (failure) {
        if (!ended) setError(failure);
      }
      if (!ended) merge(found);
    })();
    return () => { ended = true; off(); clearTimeout(frame.current); };
  }, []);
  const resume = () => {
    const kept = waiting.current;
    waiting.current = [];
    setEvents((before) => [...kept, ...before].slice(0, KEPT));
    setPaused(false);
  };
  const types = [...new Set(events.map((each) => each.Type))].sort();
  const shown = events.filter((each) => (!type || each.Type === type) && (!text || eventText(each).includes(text.toLowerCase())));
  return html`<div class="events-page"><${PageHead} title=${t('events.title')}>
      <select aria-label=${t('events.type')} value=${type} onChange=${(event) => setQuery({ type: event.currentTarget.value })}>
        <option value="">${t('events.all')}</option>${types.map((name) => html`<option value=${name}>${name}</option>`)}</select>
      <${Search} value=${text} label=${t('events.text')} onInput=${(value) => setQuery({ q: value })} />
      <button type="button" aria-pressed=${paused} onClick=${() => (paused ? resume() : setPaused(true))}>${paused ? t('events.resume') : t('events.pause')}</button>
      <button type="button" class="ghost" onClick=${() => setEvents([])}>${t('events.clear')}</button><//>
    <${ErrorBox} error=${error} />
    ${shown.length ? html`<p class="soft">${t('events.count', { count: shown.length })}${waiting.current.length ? `, ${t('events.new', { count: waiting.current.length })}` : ''}</p>
    <div class="table-frame"><table class="events" aria-label=${t('events.title')}><thead><tr><th scope="col">${t('events.time')}</th><th scope="col">${t('events.type')}</th>
      <th scope="col">${t('events.action')}</th><th scope="col">${t('events.object')}</th><th scope="col">${t('events.details')}</th></tr></thead>
    <tbody>${shown.slice(0, SHOWN).map((each) => {
      const action = each.Action.split(':')[0];
      const name = each.Actor?.Attributes?.name ?? each.Actor?.ID?.slice(0, 12) ?? '';
      return html`<tr key=${`${nano(each)} ${each.Actor?.ID} ${each.Action}`} class=${BAD.includes(action) ? 'notable' : ''}>
        <td class="mono">${new Date(nano(each) / 1e6).toLocaleTimeString(language())}</td><td class="soft">${each.Type}</td>
        <td><span class="action action-${action}">${each.Action}</span></td>
        <td>${each.Type === 'container' ? html`<a href=${`#/containers/${each.Actor.ID.slice(0, 12)}`}>${name}</a>` : name}</td>
        <td class="soft mono">${details(each)}</td></tr>`;
    })}</tbody></table></div>` : html`<${Empty} title=${t('events.none')} />`}</div>`;
}

export const page = { words, View: EventsPage };
