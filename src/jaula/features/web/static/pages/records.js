// Records: what a container does, for some seconds; the entries, the hash chain, and the profile.

import { html, ErrorBox, PageHead, Empty, Search, useEffect, useRef, useState } from '../ui.js';
import { get, sendForText } from '../api.js';
import { t } from '../i18n.js';
import { style } from '../styles.js';
import { bytes, containerName } from '../format.js';
import { checkChain, entriesOf, parseRecord } from '../record.js';
import words from '../i18n/map.js';

await style('pages/map.css');

const SHOWN = 400;
const kept = []; // records of this page: {name, text, lines, chain}

async function open(name, text) {
  const record = parseRecord(text);
  record.name = name;
  record.text = text;
  record.chain = await checkChain(text);
  kept.unshift(record);
  kept.length = Math.min(kept.length, 8);
  return record;
}

function Record({ record }) {
  const [kind, setKind] = useState('');
  const [text, setText] = useState('');
  const [profile, setProfile] = useState('');
  const [error, setError] = useState(null);
  const entries = entriesOf(record);
  const kinds = [...new Set(entries.map((each) => each.kind))];
  const shown = entries.filter((each) => (!kind || each.kind === kind) && (!text || `${each.program} ${each.subject}`.toLowerCase().includes(text.toLowerCase())));
  const [address, setAddress] = useState('');
  useEffect(() => {
    const made = URL.createObjectURL(new Blob([record.text], { type: 'application/x-ndjson' }));
    setAddress(made);
    return () => URL.revokeObjectURL(made);
  }, [record]);
  const derive = async () => {
    setError(null);
    try {
      setProfile(await sendForText('POST', '/jaula/harden', new Blob([record.text]), { headers: { 'Content-Type': 'application/octet-stream' } }));
    } catch (failure) {
      setError(failure);
    }
  };
  return html`<section class="card record"><header><div><p class="kicker">${record.header?.container?.image ?? ''}</p><h2>${record.header?.container?.name ?? record.name}</h2></div>
      <div class="buttons"><a class="button" href=${address} download=${`${record.name}.record`}>${t('records.download')}</a><button type="button" class="primary" onClick=${derive}>${t('records.profile')}</button></div></header>
    <p><span class="word ${record.chain.broken ? 'fails' : 'holds'}">${record.chain.broken ? t('records.broken', { line: record.chain.broken }) : t('records.intact')}</span>${' '}
      <span class="soft">${t('records.lines', { count: record.lines.length })}, ${bytes(record.text.length)}${record.end ? `, ${t('records.duration', { seconds: (record.end.duration / 1e9).toFixed(1) })}` : ''}</span></p>
    <p class="soft mono">${t('records.head')} ${record.chain.head}</p><${ErrorBox} error=${error} />
    ${profile ? html`<section class="profile-text"><h3>${t('records.profiletitle')}</h3><pre tabindex="0">${profile}</pre><p class="soft">${t('records.apply')}</p></section>` : null}
    <div class="filters" role="group" aria-label=${t('records.kind')}><button type="button" class="chip" aria-pressed=${!kind} onClick=${() => setKind('')}>${t('audit.everything')} <span class="count">${entries.length}</span></button>
      ${kinds.map((name) => html`<button type="button" class="chip" aria-pressed=${kind === name} onClick=${() => setKind(kind === name ? '' : name)}>${name} <span class="count">${entries.filter((each) => each.kind === name).length}</span></button>`)}
      <${Search} value=${text} label=${t('records.filter')} onInput=${setText} /></div>
    <div class="table-frame"><table aria-label=${t('records.kind')}><thead><tr><th scope="col">${t('records.kind')}</th><th scope="col">${t('records.program')}</th><th scope="col">${t('records.subject')}</th><th scope="col" class="right">${t('records.count')}</th></tr></thead>
    <tbody>${shown.slice(0, SHOWN).map((each) => html`<tr><td class="soft">${each.kind}</td><td class="mono">${each.program}</td><td class="mono">${each.subject}</td><td class="right mono">${each.count}</td></tr>`)}</tbody></table></div></section>`;
}

function RecordsPage({ query }) {
  const [containers, setContainers] = useState([]);
  const [ref, setRef] = useState(query.get('c') ?? '');
  const [seconds, setSeconds] = useState(10);
  const [left, setLeft] = useState(0);
  const [error, setError] = useState(null);
  const [, redraw] = useState(0);
  const timer = useRef(0);
  useEffect(() => { get('/containers/json').then(setContainers, setError); return () => clearInterval(timer.current); }, []);
  const chosen = containers.find((each) => ref && each.Id.startsWith(ref));
  const record = async (event) => {
    event.preventDefault();
    setError(null);
    setLeft(seconds);
    timer.current = setInterval(() => setLeft((now) => Math.max(1, now - 1)), 1000);
    try {
      await open(containerName(chosen), await sendForText('POST', `/jaula/containers/${chosen.Id}/record?seconds=${seconds}`));
    } catch (failure) {
      setError(failure);
    }
    clearInterval(timer.current);
    setLeft(0);
  };
  return html`<div class="records-page"><${PageHead} title=${t('records.title')} about=${t('records.lead')} />
    <form class="ask card" onSubmit=${record}><label class="field"><span>${t('why.container')}</span><select required value=${chosen?.Id ?? ''} onChange=${(event) => setRef(event.currentTarget.value)}>
      <option value="">${t('why.choose')}</option>${containers.map((each) => html`<option value=${each.Id}>${containerName(each)}</option>`)}</select></label>
      <label class="field"><span>${t('records.seconds')}</span><input type="number" required min="1" max="3600" value=${seconds} onInput=${(event) => setSeconds(Number(event.currentTarget.value))} /></label>
      <button class="primary" disabled=${left > 0}>${t('records.record')}</button>
      <label class="field"><span>${t('records.open')}</span><input type="file" accept=".record,.jsonl" onChange=${async (event) => {
        const [file] = event.currentTarget.files;
        if (!file) return;
        setError(null);
        try { await open(file.name.replace(/\.record$/, ''), await file.text()); redraw((n) => n + 1); } catch (failure) { setError(failure); }
      }} /></label></form>
    <div aria-live="polite">${left ? html`<p class="busy">${t('records.recording', { name: chosen ? containerName(chosen) : '', left })}</p>` : null}<${ErrorBox} error=${error} /></div>
    ${kept.length ? kept.map((each) => html`<${Record} key=${each.chain.head} record=${each} />`) : html`<${Empty} title=${t('records.none')} />`}</div>`;
}

export const page = { words, View: RecordsPage };
