// Verify: every row of every container that does not hold, or all rows of one container.

import { html, ErrorBox, PageHead, Empty, useEffect, useState } from '../ui.js';
import { t } from '../i18n.js';
import { style } from '../styles.js';
import { observed } from '../observed.js';
import { Evidence } from '../evidence.js';
import { countLayers, nameOf, sortLayers, worst } from '../isolation.js';
import words from '../i18n/map.js';

await style('pages/map.css');

function Strip({ layers }) {
  return html`<span class="strip" aria-hidden="true">${sortLayers(layers).map((each) => html`<i class=${each.Verdict} title=${each.Layer}></i>`)}</span>`;
}

function VerifyPage({ query }) {
  const [, redraw] = useState(0);
  useEffect(() => observed.subscribe((kind) => { if (kind !== 'stats') redraw((n) => n + 1); }), []);
  const entries = observed.entries();
  const requested = query.get('c');
  const chosen = requested ? entries.find((each) => each.Id.startsWith(requested)) : null;
  if (chosen) {
    return html`<div class="verify-page"><${PageHead} title=${`${t('verify.title')}: ${nameOf(chosen)}`} about=${t('verify.lead')} back=${{ href: '#/verify', text: t('verify.title') }} />
      <${Evidence} id=${chosen.Id} name=${nameOf(chosen)} layer=${query.get('layer')} base="verify" version=${observed.containers.get(chosen.Id)?.isolation?.Time} /></div>`;
  }
  return html`<div class="verify-page"><${PageHead} title=${t('verify.title')} about=${t('verify.lead')} />
    <${ErrorBox} error=${observed.error ? { message: observed.error } : null} />
    ${observed.ready && !entries.length ? html`<${Empty} title=${t('map.none')} />` : null}
    ${entries.length ? html`<div class="table-frame"><table aria-label=${t('verify.title')}><thead><tr><th scope="col">${t('map.container')}</th><th scope="col">${t('map.verdict')}</th>
      <th scope="col">${t('projects.isolation')}</th><th scope="col" class="right">${t('verify.rows')}</th><th scope="col">${t('events.details')}</th></tr></thead><tbody>${entries.map((entry) => {
      const isolation = observed.containers.get(entry.Id)?.isolation;
      const verdict = isolation ? worst(isolation.Layers) : 'unknown';
      return html`<tr key=${entry.Id}><th scope="row"><a href=${`#/verify?c=${entry.Id.slice(0, 12)}`}>${nameOf(entry)}</a></th>
        <td class="word ${verdict}">${isolation ? t(`verdict.${verdict}`) : t('map.reading')}</td>
        <td>${isolation ? html`<${Strip} layers=${isolation.Layers} />` : null}</td>
        <td class="right mono">${isolation ? countLayers(isolation.Layers).rows : ''}</td>
        <td>${(isolation?.Rows ?? []).slice(0, 4).map((row) => html`<span class="exception"><b class="word ${row.Verdict}">${row.Id}</b> <span class="soft">${row.Effective}</span></span> `)}</td></tr>`;
    })}</tbody></table></div>` : null}</div>`;
}

export { Strip };
export const page = { words, View: VerifyPage };
