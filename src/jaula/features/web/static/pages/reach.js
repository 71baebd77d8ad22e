// Networks: who may reach whom, as a graph and as a matrix; published ports through the firewall.

import {
  html, ErrorBox, PageHead, useEffect, useRef, useState,
} from '../ui.js';
import { get, onEvent } from '../api.js';
import { t } from '../i18n.js';
import { style } from '../styles.js';
import { setQuery } from '../router.js';
import { observed } from '../observed.js';
import { isPastFirewall, membersReach, model, portText, reach } from '../reach.js';
import words from '../i18n/map.js';

await style('pages/map.css');

const MATRIX = 30; // containers; more are shown by network
const MARKS = { yes: '●', no: '·', ports: '◐', list: '≡', rules: '?' };

const partyName = (party) => (party === 'host' ? t('reach.hostparty')
  : party === 'outside' ? t('reach.outside') : party.name);
const partyId = (party) => (typeof party === 'string' ? party : party.id);

function Answer({ answer }) {
  return html`<span class="answer ${answer.can}"><i aria-hidden="true">${MARKS[answer.can]}</i> ${t(`reach.${answer.can}`)}</span>`;
}

/** A container as a chip; its look says whether the chosen one reaches it. */
function Chip({ party, chosen, there, back }) {
  const can = there?.can ?? '';
  const from = back?.can ?? '';
  return html`<a class="party ${chosen ? 'chosen' : ''} to-${can} from-${from}" href=${`#/reach?c=${party.id.slice(0, 12)}`}
      data-party=${party.id} aria-current=${chosen ? 'true' : null}
      title=${there ? `${t(`reach.${can}`)}: ${t(there.why)}` : party.name}>
    <span>${party.name}</span>${party.egress ? html`<b title=${t('reach.egress')}>⇥</b>` : null}
    ${party.listen ? html`<b title=${t('reach.listen')}>⇤</b>` : null}</a>`;
}

function Room({ network, members, chosen, answers }) {
  const apart = !membersReach(network);
  return html`<section class="room ${network.Internal ? 'internal' : ''} ${apart ? 'apart' : ''}" data-network=${network.Name}>
    <h3>${network.Name} <span class="soft">${network.Driver}</span>
      ${network.Internal ? html`<b class="mark">${t('reach.internalnet')}</b>` : null}
      ${apart ? html`<b class="mark">${t('reach.iccoff')}</b>` : null}
      ${network.Labels?.['io.jaula.shared'] !== undefined ? html`<b class="mark">${t('reach.shared')}</b>` : null}</h3>
    <p class="soft mono">${(network.IPAM?.Config ?? []).map((each) => each.Subnet).join(', ') || '–'}</p>
    <div class="parties">${members.map((party) => html`<${Chip} key=${party.id} party=${party} chosen=${party === chosen}
      ...${answers.get(party.id) ?? {}} />`)}</div></section>`;
}

/** Published ports as gates of the host's firewall: outside, the port of the host, the container. */
function Gates({ parties, chosen }) {
  const gates = new Map();
  for (const party of parties) {
    for (const port of party.published) {
      const key = `${port.PublicPort}/${port.Type} ${party.id}`;
      if (!gates.has(key)) gates.set(key, { port, party, addresses: [] });
      gates.get(key).addresses.push(port.IP);
    }
  }
  const rows = [...gates.values()].sort((a, b) => a.port.PublicPort - b.port.PublicPort);
  if (!rows.length) return html`<p class="soft">${t('reach.unpublished')}</p>`;
  return html`<ul class="gates">${rows.map(({ port, party, addresses }) => {
    const local = addresses.every((each) => each === '::1' || each.startsWith('127.'));
    const past = isPastFirewall(party);
    return html`<li key=${port.PublicPort + port.Type + party.id} class=${`${local ? 'local' : past ? 'past' : ''} ${chosen && chosen !== party ? 'dim' : ''}`}>
      <span class="door" aria-hidden="true"></span>
      <span class="mono" title=${addresses.join(', ')}>${local ? '127.0.0.1' : '*'}:${port.PublicPort}<span class="soft">/${port.Type}</span></span>
      <span class="arrow" aria-hidden="true">→</span>
      <a href=${`#/reach?c=${party.id.slice(0, 12)}`}>${party.name}<span class="soft">:${port.PrivatePort}</span></a>
      <span class="soft why">${t(local ? 'reach.loopback' : past ? 'reach.past' : 'reach.published')}</span></li>`;
  })}</ul>`;
}

/** Lines from the chosen container to those that it reaches, drawn over the rooms. */
function Lines({ root, chosen, answers }) {
  const canvas = useRef(null);
  useEffect(() => {
    const draw = () => {
      const svg = canvas.current;
      if (!svg || !root.current) return;
      while (svg.firstChild) svg.firstChild.remove();
      if (!chosen) return;
      const frame = root.current.getBoundingClientRect();
      svg.setAttribute('viewBox', `0 0 ${frame.width} ${frame.height}`);
      const chips = [...root.current.querySelectorAll('[data-party]')];
      const own = chips.filter((each) => each.dataset.party === partyId(chosen));
      for (const chip of chips) {
        const there = answers.get(chip.dataset.party)?.there;
        if (!there || there.can === 'no' || chip.dataset.party === partyId(chosen)) continue;
        const to = chip.getBoundingClientRect();
        const start = own.map((each) => each.getBoundingClientRect())
          .sort((a, b) => Math.abs(a.top - to.top) + Math.abs(a.left - to.left) - Math.abs(b.top - to.top) - Math.abs(b.left - to.left))[0];
        if (!start) continue;
        const x1 = start.left + start.width / 2 - frame.left;
        const y1 = start.top + start.height / 2 - frame.top;
        const x2 = to.left + to.width / 2 - frame.left;
        const y2 = to.top + to.height / 2 - frame.top;
        const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
        const bend = Math.min(80, Math.abs(x2 - x1) / 2 + 20);
        path.setAttribute('d', `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`);
        path.setAttribute('class', `reach-line ${there.can}`);
        svg.append(path);
      }
    };
    const frame = requestAnimationFrame(draw);
    addEventListener('resize', draw);
    return () => { cancelAnimationFrame(frame); removeEventListener('resize', draw); };
  });
  return html`<svg class="reach-lines" ref=${canvas} aria-hidden="true" focusable="false"></svg>`;
}

function Rows({ title, rows }) {
  const reached = rows.filter(([, answer]) => answer.can !== 'no');
  const closed = rows.filter(([, answer]) => answer.can === 'no');
  const reasons = [...new Set(closed.map(([, answer]) => t(answer.why)))];
  return html`<section class="reach-rows"><h3>${title}</h3><table aria-label=${title}>
    <thead><tr><th scope="col">${t('reach.party')}</th><th scope="col">${t('reach.answer')}</th><th scope="col">${t('reach.why')}</th></tr></thead>
    <tbody>${reached.map(([party, answer]) => html`<tr key=${partyId(party)}><th scope="row">${partyName(party)}</th>
      <td><${Answer} answer=${answer} /></td><td>${t(answer.why)}${answer.ports.length ? html`: <span class="mono">${answer.ports.map(portText).join(', ')}</span>` : null}</td></tr>`)}
      ${closed.length ? html`<tr class="soft"><th scope="row">${t('reach.others', { count: closed.length })}</th><td><${Answer} answer=${{ can: 'no' }} /></td><td>${reasons.join('; ')}</td></tr>` : null}</tbody></table></section>`;
}

/** A matrix of reach, one row for each party that connects. */
function Matrix({ parties }) {
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${t('reach.matrix')}><table class="matrix">
    <caption class="hidden">${t('networks.lead')}</caption>
    <thead><tr><th scope="col">${t('reach.from')} ↓ ${t('reach.to')} →</th>${parties.map((to) => html`<th scope="col" key=${partyId(to)}><span>${partyName(to)}</span></th>`)}</tr></thead>
    <tbody>${parties.map((from) => html`<tr key=${partyId(from)}><th scope="row">${partyName(from)}</th>
      ${parties.map((to) => {
        if (from === to) return html`<td class="self" key=${partyId(to)}>–</td>`;
        const answer = reach(from, to);
        const ports = answer.ports.length ? `: ${answer.ports.map(portText).join(', ')}` : '';
        return html`<td key=${partyId(to)} class="answer ${answer.can}" title=${`${partyName(from)} → ${partyName(to)}: ${t(answer.why)}${ports}`}>
          <i aria-hidden="true">${MARKS[answer.can]}</i><span class="hidden">${t(`reach.${answer.can}`)}</span></td>`;
      })}</tr>`)}</tbody></table></div>
    <p class="legend">${Object.keys(MARKS).map((can) => html`<${Answer} answer=${{ can }} />`)}</p>`;
}

function ReachPage({ query }) {
  const [networks, setNetworks] = useState(null);
  const [error, setError] = useState(null);
  const [, redraw] = useState(0);
  const rooms = useRef(null);
  useEffect(() => {
    const read = () => get('/networks').then(setNetworks, setError);
    read();
    const off = onEvent(['network'], read);
    const end = observed.subscribe((kind) => { if (kind !== 'stats') redraw((n) => n + 1); });
    return () => { off(); end(); };
  }, []);
  const entries = observed.entries();
  if (!networks || !observed.ready) return html`<${PageHead} title=${t('reach.title')} about=${t('networks.lead')} /><${ErrorBox} error=${error} />`;
  const fresh = model(entries, networks, observed.containers);
  const requested = query.get('c');
  const chosen = ['host', 'outside'].includes(requested) ? requested
    : requested ? fresh.parties.find((each) => each.id.startsWith(requested)) : null;
  const all = [...fresh.parties, 'host', 'outside'];
  const answers = new Map(chosen ? all.filter((each) => each !== chosen).map((each) => [partyId(each), { there: reach(chosen, each), back: reach(each, chosen) }]) : []);
  const shown = networks.filter((each) => !['host', 'none'].includes(each.Name) && (fresh.members.get(each.Name).length || each.Name !== 'bridge'))
    .sort((a, b) => fresh.members.get(b.Name).length - fresh.members.get(a.Name).length);
  const onHost = fresh.parties.filter((each) => each.mode === 'host');
  const alone = fresh.parties.filter((each) => each.mode !== 'host' && !each.networks.length);
  const end = (name) => html`<a class="party end ${chosen === name ? 'chosen' : ''} to-${answers.get(name)?.there.can ?? ''}" data-party=${name}
    href=${`#/reach?c=${name}`}>${t(name === 'host' ? 'reach.hostparty' : 'reach.outside')}</a>`;
  return html`<div class="reach-page"><${PageHead} title=${t('reach.title')} about=${t('networks.lead')}>
      ${chosen ? html`<button type="button" onClick=${() => setQuery({ c: '' })}>×  ${partyName(chosen)}</button>` : null}<//>
    <${ErrorBox} error=${error} />
    <div class="reach-graph" ref=${rooms}>
      <div class="column outside"><h2>${t('reach.outside')}</h2>${end('outside')}</div>
      <div class="column firewall"><h2>${t('reach.firewall')}</h2><${Gates} parties=${fresh.parties} chosen=${typeof chosen === 'string' ? null : chosen} /></div>
      <div class="column rooms"><h2>${t('networks.title')}</h2><div class="room-grid">${shown.map((network) => html`<${Room} key=${network.Id} network=${network}
        members=${fresh.members.get(network.Name)} chosen=${chosen} answers=${answers} />`)}
        <section class="room hostroom" data-network="host"><h3>${t('reach.hostparty')}</h3><div class="parties">${end('host')}${onHost.map((party) => html`<${Chip} key=${party.id} party=${party} chosen=${party === chosen} ...${answers.get(party.id) ?? {}} />`)}</div></section>
        ${alone.length ? html`<section class="room internal"><h3>${t('reach.none')}</h3><div class="parties">${alone.map((party) => html`<${Chip} key=${party.id} party=${party} chosen=${party === chosen} ...${answers.get(party.id) ?? {}} />`)}</div></section>` : null}
      </div></div>
      <${Lines} root=${rooms} chosen=${chosen} answers=${answers} />
    </div>
    ${chosen ? html`<div class="reach-answers">
      <${Rows} title=${t('reach.canreach', { name: partyName(chosen) })} rows=${all.filter((each) => each !== chosen).map((each) => [each, reach(chosen, each)])} />
      <${Rows} title=${t('reach.reachedby', { name: partyName(chosen) })} rows=${all.filter((each) => each !== chosen).map((each) => [each, reach(each, chosen)])} /></div>`
      : html`<p class="soft">${t('reach.choose')}</p>`}
    <section class="matrix-section"><h2>${t('reach.matrix')}</h2>
      ${fresh.parties.length > MATRIX ? html`<p class="soft">${t('reach.many', { count: MATRIX })}</p>` : null}
      <${Matrix} parties=${fresh.parties.length > MATRIX ? [...representatives(fresh), 'host', 'outside'] : all} />
    </section></div>`;
}

/** One party for each network, named after it: members of a network reach the same others. */
function representatives(host) {
  return host.networks.filter((each) => host.members.get(each.Name)?.length).map((each) => {
    const members = host.members.get(each.Name);
    return { ...members[0], id: each.Id, name: each.Name, networks: [each], gates: members.flatMap((one) => one.published),
      egress: null, listen: null, namespaceOf: undefined };
  });
}

export const page = { words, View: ReachPage };
