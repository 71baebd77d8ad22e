// The evidence for one container: its layers as nested boxes, and the rows of a layer.

import { html, ErrorBox, useEffect, useRef, useState } from './ui.js';
import { get } from './api.js';
import { t } from './i18n.js';
import { sortLayers, worst } from './isolation.js';

/** The refusals that the engine has counted by the layer of the drawing that they belong to. */
const REFUSING = { seccomp: ['seccomp'], lsm: ['apparmor', 'selinux', 'landlock'] };

/** Return the number of refusals of a layer since the engine's start as text, empty for none. */
function refused(layer, refusals) {
  const count = (REFUSING[layer] ?? []).reduce((sum, each) => sum + (refusals[each] ?? 0), 0);
  return count ? ` · ${t('evidence.refused', { count })}` : '';
}

/** The layers as boxes within each other, with the program at the centre. */
export function Boxes({ id, layers, name, chosen, base, refusals }) {
  let inner = html`<div class="program"><span>${name}</span></div>`;
  for (const layer of [...layers].reverse()) {
    const bad = layer.Fails + layer.Unknown + layer.Relaxed;
    const all = bad + layer.Holds;
    const words = bad ? `${bad} ${t(`verdict.${layer.Verdict}`)}` : t('evidence.rows', { count: all });
    inner = html`<div class="box ${layer.Verdict} ${chosen === layer.Layer ? 'chosen' : ''}">
      <a class="band" href=${`#/${base}?c=${id.slice(0, 12)}&layer=${layer.Layer}`} aria-current=${chosen === layer.Layer ? 'true' : null}>
        <strong>${layer.Layer}</strong> <span class="what">${t(`layer.${layer.Layer}`)}</span>
        <span class="held">${words}${refused(layer.Layer, refusals)}</span></a>${inner}</div>`;
  }
  return html`<div class="boxes">${inner}</div>`;
}

function Row({ row, check }) {
  const [open, setOpen] = useState(row.Verdict !== 'holds');
  return html`<li class="evidence-row ${row.Verdict}">
    <button type="button" aria-expanded=${open} onClick=${() => setOpen(!open)}>
      <span class="word ${row.Verdict}">${t(`verdict.${row.Verdict}`)}</span> <span class="row-name">${row.Id}</span>
      <span class="effect">${row.Effective}</span></button>
    ${open ? html`<dl>
      <dt>${t('evidence.requested')}</dt><dd>${row.Requested || '–'}</dd>
      <dt>${t('evidence.effective')}</dt><dd>${row.Effective || '–'}</dd>
      <dt>${t('evidence.file')}</dt><dd><code>${row.Evidence || '–'}</code></dd>
      ${check ? html`<dt>${t('evidence.reason')}</dt><dd>${check.Reason}</dd>` : null}
      ${check && row.Verdict !== 'holds' ? html`<dt>${t('evidence.advice')}</dt><dd>${check.Advice}</dd>` : null}
      ${check ? html`<dt>${t('evidence.references')}</dt><dd class="soft">${check.References.join(', ')}</dd>` : null}
    </dl>` : null}</li>`;
}

/** The changed files of the container's writable layer, in numbers. */
function Files({ id }) {
  const [changes, setChanges] = useState(null);
  const [error, setError] = useState(null);
  useEffect(() => { get(`/containers/${id}/changes`).then(setChanges, setError); }, [id]);
  if (!changes?.length) return html`<${ErrorBox} error=${error} />`;
  const kinds = [0, 0, 0];
  for (const each of changes) kinds[each.Kind] += 1;
  return html`<details class="changed-files"><summary>${t('evidence.files', { added: kinds[1], changed: kinds[0], removed: kinds[2] })}</summary>
    <ul>${changes.slice(0, 200).map((each) => html`<li><span class="soft">${'CAD'[each.Kind]}</span> <code>${each.Path}</code></li>`)}</ul></details>`;
}

/** The rows of `jaula verify`, read from the kernel when the panel opens and at each change. */
export function Evidence({ id, name, layer, version, onClose, base = 'map' }) {
  const [report, setReport] = useState(null);
  const [error, setError] = useState(null);
  const [refusals, setRefusals] = useState({});
  const panel = useRef(null);
  const read = () => get(`/jaula/containers/${id}/verify`).then(
    (document) => { setReport(document); setError(null); }, (failure) => setError(failure));
  const readRefusals = () => get(`/containers/${id}/json`).then(
    (document) => setRefusals(document.Refusals ?? {}), () => setRefusals({}));
  useEffect(() => { read(); readRefusals(); }, [id, version]);
  useEffect(() => { if (onClose) panel.current?.focus({ preventScroll: true }); }, [id]);
  const layers = report ? sortLayers(report.Layers) : [];
  const shown = layer ?? layers.find((each) => each.Verdict === worst(layers) && each.Verdict !== 'holds')?.Layer;
  const rows = (report?.Rows ?? []).filter((row) => row.Layer === shown)
    .sort((a, b) => (a.Verdict === 'holds') - (b.Verdict === 'holds'));
  return html`<aside class="evidence" ref=${panel} tabindex="-1" aria-label=${t('evidence.of', { name })}
      onKeyDown=${(event) => { if (event.key === 'Escape' && onClose) onClose(); }}>
    <header><div><p class="kicker">${t('evidence.title')}</p><h2>${name}</h2></div>
      <button type="button" class="quiet" onClick=${() => { read(); readRefusals(); }}>${t('evidence.again')}</button>
      ${onClose ? html`<button type="button" class="quiet close" aria-label=${t('evidence.close')} onClick=${onClose}>×</button>` : null}</header>
    <${ErrorBox} error=${error} />
    ${report ? html`<p class="soft">${t('evidence.read', { rows: report.Rows.length, time: report.Time.slice(11, 19) })}</p>
      <${Boxes} id=${id} layers=${layers} name=${name} chosen=${shown} base=${base} refusals=${refusals} />` : error ? null : html`<p class="soft">${t('map.reading')}</p>`}
    ${shown && report ? html`<section class="evidence-rows" aria-label=${shown}><h3>${shown} <span class="soft">${t(`layer.${shown}`)}</span></h3>
      <ul>${rows.map((row) => html`<${Row} key=${row.Id} row=${row} check=${report.Checks[row.Check]} />`)}</ul></section>` : null}
    <${Files} id=${id} />
    <p class="more"><a href=${`#/containers/${id.slice(0, 12)}`}>${t('evidence.container')}</a>
      <a href=${`#/stats?c=${id.slice(0, 12)}`}>${t('evidence.stats')}</a>
      <a href=${`#/why?c=${id.slice(0, 12)}`}>${t('evidence.why')}</a></p>
  </aside>`;
}
