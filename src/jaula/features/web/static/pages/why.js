// Why: ask which layer of a container refuses an operation.

import { html, ErrorBox, PageHead, useEffect, useState } from '../ui.js';
import { get, send } from '../api.js';
import { language, t } from '../i18n.js';
import { style } from '../styles.js';
import { containerName } from '../format.js';
import { splitWords } from '../words.js';
import { translator } from '../templates.js';
import words from '../i18n/map.js';
import { answers, layers } from '../i18n/why.js';

await style('pages/map.css');

const EXAMPLES = [
  'mount -t tmpfs none /mnt', 'ping -c 1 192.0.2.1', 'mknod /tmp/disk b 8 0', 'date -s 00:00',
  'cat /proc/kcore', 'hostname other', 'dmesg', 'unshare -m true', 'chroot / true',
];

const spanish = { answer: translator(answers), layer: translator(layers) };
const answer = (text) => (language() === 'es' ? spanish.answer(text) : text);
const layer = (text) => (language() === 'es' ? spanish.layer(text) : text);

function Diagnosis({ each }) {
  const { explanation: why, operations } = each;
  return html`<li class="diagnosis card"><p class="layer-name">${t('why.layer')} <strong>${layer(why.layer)}</strong></p>
    <p class="rule">${answer(why.rule)}</p>
    <dl><dt>${t('why.proof')}</dt><dd>${answer(why.proof)}</dd>
      <dt>${t('why.flag')}</dt><dd>${why.flag ? html`<code class="flag">${answer(why.flag)}</code>` : t('why.none')}</dd>
      ${why.in_profile ? html`<dt>${t('why.profile')}</dt><dd>${answer(why.in_profile)}</dd>` : null}
      ${why.gives_away ? html`<dt>${t('why.gives')}</dt><dd class="word fails">${answer(why.gives_away)}</dd>` : null}
      ${why.advice ? html`<dt>${t('why.advice')}</dt><dd>${answer(why.advice)}</dd>` : null}</dl>
    <details open=${operations.length < 4}><summary>${t('why.operations')} <span class="count">${operations.length}</span></summary>
      <ul class="operations">${operations.map((one) => html`<li><code>${answer(one.program)}</code> <code>${answer(one.call)}</code> <code>${one.object}</code> <b>${answer(one.errno)}</b>${one.count > 1 ? ` × ${one.count}` : ''}</li>`)}</ul></details></li>`;
}

function WhyPage({ query }) {
  const [containers, setContainers] = useState([]);
  const [ref, setRef] = useState(query.get('c') ?? '');
  const [command, setCommand] = useState(query.get('cmd') ?? '');
  const [user, setUser] = useState('');
  const [report, setReport] = useState(null);
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  useEffect(() => { get('/containers/json?all=1').then(setContainers, setError); }, []);
  const chosen = containers.find((each) => each.Id.startsWith(ref) && ref);
  const running = chosen?.State === 'running';
  const ask = async (event) => {
    event.preventDefault();
    setBusy(true); setError(null); setReport(null);
    try {
      setReport(running ? await send('POST', `/jaula/containers/${chosen.Id}/why`, { Cmd: splitWords(command), User: user })
        : await get(`/jaula/containers/${chosen.Id}/why`));
    } catch (failure) {
      setError(failure);
    }
    setBusy(false);
  };
  return html`<div class="why-page"><${PageHead} title=${t('why.title')} about=${t('why.lead')} />
    <form class="ask card" onSubmit=${ask}>
      <label class="field"><span>${t('why.container')}</span><select required value=${chosen?.Id ?? ''} onChange=${(event) => setRef(event.currentTarget.value)}>
        <option value="">${t('why.choose')}</option>${containers.map((each) => html`<option value=${each.Id}>${containerName(each)} · ${t(`state.${each.State}`)}</option>`)}</select></label>
      ${chosen && !running ? null : html`<label class="field grow"><span>${t('why.command')}</span><input class="mono" required value=${command} spellcheck=${false} autocomplete="off"
        placeholder="ping -c 1 192.0.2.1" onInput=${(event) => setCommand(event.currentTarget.value)} /></label>
      <label class="field"><span>${t('why.user')}</span><input value=${user} size="8" autocomplete="off" spellcheck=${false} placeholder="root" onInput=${(event) => setUser(event.currentTarget.value)} /></label>`}
      <button class="primary" disabled=${busy}>${chosen && !running ? t('why.exited') : t('why.ask')}</button></form>
    <p class="soft">${t('why.warning')} ${t('why.examples')}: ${EXAMPLES.map((each) => html`<button type="button" class="chip mono" onClick=${() => setCommand(each)}>${each}</button> `)}</p>
    <div aria-live="polite">${busy ? html`<p class="busy">${t('why.asking')}</p>` : null}
    <${ErrorBox} error=${error} />
    ${report ? html`<section class="answer-list"><h2>${report.container}: ${answer(report.state)}</h2>
      ${report.diagnoses.length ? html`<ol>${report.diagnoses.map((each, index) => html`<${Diagnosis} key=${index} each=${each} />`)}</ol>` : html`<p class="standing holds">${t('why.nothing')}</p>`}
      ${report.notes.map((note) => html`<p class="soft">${answer(note)}</p>`)}
      ${report.log ? html`<pre>${report.log}</pre>` : null}
      ${report.harmless.length ? html`<details><summary>${t('why.harmless', { count: report.harmless.length })}</summary><ol>${report.harmless.map((each, index) => html`<${Diagnosis} key=${index} each=${each} />`)}</ol></details>` : null}
    </section>` : null}</div></div>`;
}

export const page = { words, View: WhyPage };
