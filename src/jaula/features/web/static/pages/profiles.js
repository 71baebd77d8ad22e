// Profiles: which profile each container runs with, and the profile's text.

import { html, ErrorBox, PageHead, Empty, useEffect, useState } from '../ui.js';
import { get } from '../api.js';
import { t } from '../i18n.js';
import { style } from '../styles.js';
import { observed } from '../observed.js';
import { nameOf } from '../isolation.js';
import { Strip } from './verify.js';
import words from '../i18n/map.js';

await style('pages/map.css');

/** The document of the profile that a container was created with; nothing for a preset. */
function Text({ id }) {
  const [text, setText] = useState('');
  const [error, setError] = useState(null);
  useEffect(() => { get(`/containers/${id}/json`).then((document) => setText(document.HostConfig.Profile ?? ''), setError); }, [id]);
  if (error && error.status !== 404) return html`<${ErrorBox} error=${error} />`;
  return text.includes('\n') ? html`<pre tabindex="0">${text}</pre>` : null;
}

function ProfilesPage() {
  const [, redraw] = useState(0);
  useEffect(() => observed.subscribe((kind) => { if (kind !== 'stats') redraw((n) => n + 1); }), []);
  const groups = new Map();
  for (const entry of observed.entries()) {
    const isolation = observed.containers.get(entry.Id)?.isolation;
    if (!isolation) continue;
    const name = isolation.Profile || t('profiles.default');
    if (!groups.has(name)) groups.set(name, []);
    groups.get(name).push({ entry, isolation });
  }
  return html`<div class="profiles-page"><${PageHead} title=${t('profiles.title')} about=${t('profiles.lead')} />
    <${ErrorBox} error=${observed.error ? { message: observed.error } : null} />
    ${observed.ready && !observed.entries().length ? html`<${Empty} title=${t('map.none')} />` : null}
    ${[...groups].sort(([a], [b]) => a.localeCompare(b)).map(([name, members]) => html`<section class="card" key=${name}><header><h2>${name}</h2><span class="soft">${members.length}</span></header>
      <ul class="profile-members">${members.map(({ entry, isolation }) => html`<li key=${entry.Id}><a href=${`#/map?c=${entry.Id.slice(0, 12)}&layer=profile`}>${nameOf(entry)}</a> <${Strip} layers=${isolation.Layers} />
        ${isolation.Egress ? html`<span class="soft">${t('reach.egress')}: <span class="mono">${isolation.Egress.join(', ') || '–'}</span></span>` : null}
        ${isolation.Listen ? html`<span class="soft">${t('reach.listen')}: <span class="mono">${isolation.Listen.join(', ') || '–'}</span></span>` : null}</li>`)}</ul>
      <${Text} id=${members[0].entry.Id} /></section>`)}</div>`;
}

export const page = { words, View: ProfilesPage };
