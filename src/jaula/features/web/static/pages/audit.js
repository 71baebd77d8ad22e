// The audit: controls of a benchmark, judged by what is in effect.

import { html, ErrorBox, PageHead, useState, useStored } from '../ui.js';
import { get } from '../api.js';
import { t } from '../i18n.js';
import { style } from '../styles.js';
import words from '../i18n/map.js';

await style('pages/map.css');

const PROFILES = { cis: 'CIS Docker 1.6.0', jaula: 'jaula', 'nsa-k8s': 'NSA Kubernetes' };
const SCOPES = ['containers', 'engine', 'images', 'host'];
const KINDS = { pass: 'holds', fail: 'fails', manual: 'relaxed', excepted: 'relaxed', unknown: 'unknown', 'not-applicable': 'unknown' };
const ORDER = ['fail', 'unknown', 'manual', 'excepted', 'pass', 'not-applicable'];
let kept = null; // the last report: an audit takes seconds

/** A ring whose filled part is the share of controls that pass. */
function Score({ score }) {
  const part = score.applicable ? score.holding / score.applicable : 0;
  return html`<svg class="score" viewBox="0 0 120 120" role="img" aria-label=${t('audit.score', score)}>
    <circle class="track" cx="60" cy="60" r="50" pathLength="100" />
    <circle class="part ${part === 1 ? 'holds' : part > 0.8 ? 'relaxed' : 'fails'}" cx="60" cy="60" r="50" pathLength="100" stroke-dasharray=${`${part * 100} 100`} />
    <text x="60" y="66" text-anchor="middle">${Math.round(part * 100)}%</text></svg>`;
}

function Control({ control }) {
  const open = control.state === 'fail' || control.state === 'unknown';
  const shown = control.findings.filter((each) => each.state === control.state).slice(0, 50);
  return html`<details class="audit-control ${KINDS[control.state]}" open=${open && control.findings.length < 6}>
    <summary><span class="word ${KINDS[control.state]}">${t(`audit.state.${control.state}`)}</span> <span class="mono soft">${control.id}</span> ${control.title}${' '}
      <span class="soft count">${control.findings.length || ''}</span></summary>
    <ul>${shown.map((each) => html`<li><b>${each.subject}</b> ${each.evidence}${each.remediation ? html`<br /><span class="soft">→ ${each.remediation}</span>` : null}${each.note ? html`<br /><span class="soft">${each.note}</span>` : null}</li>`)}</ul></details>`;
}

function AuditPage() {
  const [profile, setProfile] = useStored('audit.profile', 'cis');
  const [scopes, setScopes] = useStored('audit.scopes', ['containers', 'engine']);
  const [report, setReport] = useState(kept);
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const [state, setState] = useState('');
  const run = async (event) => {
    event.preventDefault();
    setBusy(true); setError(null);
    try {
      kept = await get(`/jaula/audit?profile=${profile}${scopes.map((each) => `&scope=${each}`).join('')}`);
      setReport(kept);
    } catch (failure) {
      setError(failure);
    }
    setBusy(false);
  };
  const counts = Object.fromEntries(ORDER.map((name) => [name, report?.controls.filter((each) => each.state === name).length ?? 0]));
  const controls = [...(report?.controls ?? [])].filter((each) => !state || each.state === state)
    .sort((a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state));
  return html`<div class="audit-page"><${PageHead} title=${t('audit.title')} about=${t('audit.lead')} />
    <form class="ask card" onSubmit=${run}><label class="field"><span>${t('audit.profile')}</span><select value=${profile} onChange=${(event) => setProfile(event.currentTarget.value)}>
      ${Object.entries(PROFILES).map(([name, title]) => html`<option value=${name}>${title}</option>`)}</select></label>
      <fieldset class="scopes"><legend>${t('audit.scope')}</legend>${SCOPES.map((name) => html`<label class="check"><input type="checkbox" checked=${scopes.includes(name)}
        onChange=${(event) => setScopes(event.currentTarget.checked ? [...scopes, name] : scopes.filter((each) => each !== name))} /> ${t(`audit.${name}`)}</label>`)}</fieldset>
      <button class="primary" disabled=${busy || !scopes.length}>${t('audit.run')}</button></form>
    <div aria-live="polite">${busy ? html`<p class="busy">${t('audit.running')}</p>` : null}<${ErrorBox} error=${error} /></div>
    ${report ? html`<section class="audit-report"><header><${Score} score=${report.score.all} /><div><h2>${report.benchmark}</h2>
        <p>${t('audit.score', report.score.all)}</p><p class="soft">${report.host} · ${report.time}</p>
        <div class="filters" role="group" aria-label=${t('audit.show')}><button type="button" class="chip" aria-pressed=${!state} onClick=${() => setState('')}>${t('audit.everything')} <span class="count">${report.controls.length}</span></button>
        ${ORDER.filter((name) => counts[name]).map((name) => html`<button type="button" class="chip ${KINDS[name]}" aria-pressed=${state === name} onClick=${() => setState(state === name ? '' : name)}><i aria-hidden="true"></i>${t(`audit.state.${name}`)} <span class="count">${counts[name]}</span></button>`)}</div></div></header>
      ${controls.map((control) => html`<${Control} key=${control.id} control=${control} />`)}</section>` : null}</div>`;
}

export const page = { words, View: AuditPage };
