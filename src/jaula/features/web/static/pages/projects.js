// Compose projects and pods as groups, with actions on all of their containers.

import { html, ErrorBox, PageHead, Empty, StateBadge, confirm, toast, useEffect, useQuery, useState } from '../ui.js';
import { send } from '../api.js';
import { t } from '../i18n.js';
import { style } from '../styles.js';
import { containerName, statusText } from '../format.js';
import { actionsOn, groupsOf, roleOf } from '../groups.js';
import { observed } from '../observed.js';
import { portText } from '../reach.js';
import { Strip } from './verify.js';
import words from '../i18n/map.js';

await style('pages/map.css');

const VERBS = { project: ['start', 'stop', 'restart'], pod: ['start', 'stop', 'restart', 'remove'], kubelet: [] };

/** The published ports of a group. */
function Ports({ members }) {
  const ports = [...new Set(members.flatMap((each) => each.Ports ?? []).filter((each) => each.PublicPort).map(portText))];
  return ports.length ? html`<p class="soft mono">${ports.join(', ')}</p>` : null;
}

function Group({ group, reload }) {
  const [progress, setProgress] = useState('');
  const running = group.members.filter((each) => each.State === 'running').length;
  const act = async (verb) => {
    const action = t(`projects.${verb}`);
    const text = t(verb === 'remove' ? 'projects.confirmRemove' : 'projects.confirm', { count: group.members.length, name: group.name });
    const confirmed = await confirm({ title: `${action} ${group.name}`, text, action: t('projects.yes', { action: action.toLowerCase() }), danger: verb !== 'start' });
    if (!confirmed) return;
    const requests = actionsOn(group, verb);
    const failures = [];
    let done = 0;
    for (const { entry, method, path } of requests) {
      setProgress(t('projects.doing', { action, done, all: requests.length }));
      try {
        await send(method, path);
      } catch (error) {
        if (error.status !== 304) failures.push(`${containerName(entry)}: ${error.message}`);
      }
      done += 1;
    }
    setProgress('');
    reload();
    if (failures.length) toast(t('projects.failed', { count: failures.length, message: failures[0] }), 'error');
    else toast(t('projects.done'));
  };
  const idle = (verb) => (verb === 'start' && running === group.members.length) || (verb === 'stop' && !running);
  return html`<section class="card project"><header><div><p class="kicker">${t(`projects.${group.kind}`)}</p><h2>${group.name}</h2>
      ${group.detail ? html`<p class="soft mono">${group.detail}</p>` : null}<${Ports} members=${group.members} /></div>
      <span class="soft">${t('projects.running', { running, all: group.members.length })}</span>
      ${VERBS[group.kind].length ? html`<div class="buttons">${VERBS[group.kind].map((verb) => html`<button type="button" class=${verb === 'remove' ? 'danger' : ''} disabled=${progress !== '' || idle(verb)}
        onClick=${() => act(verb)}>${t(`projects.${verb}`)}</button>`)}</div>` : null}</header>
    <p role="status" class="soft">${progress}</p>
    <div class="table-frame"><table aria-label=${group.name}><thead><tr><th scope="col">${t('map.container')}</th><th scope="col">${t(group.kind === 'project' ? 'projects.service' : 'projects.role')}</th><th scope="col">${t('projects.state')}</th><th scope="col">${t('projects.isolation')}</th></tr></thead>
    <tbody>${group.members.map((each) => html`<tr key=${each.Id}><th scope="row"><a href=${`#/containers/${each.Id.slice(0, 12)}`}>${containerName(each)}</a></th>
      <td>${roleOf(each)}</td><td><${StateBadge} state=${each.State} /><br /><span class="small faint">${statusText(each.Status)}</span></td>
      <td>${observed.containers.get(each.Id)?.isolation ? html`<a href=${`#/map?c=${each.Id.slice(0, 12)}`} aria-label=${`${t('projects.isolation')} ${containerName(each)}`}><${Strip} layers=${observed.containers.get(each.Id).isolation.Layers} /></a>` : '–'}</td></tr>`)}</tbody></table></div></section>`;
}

function ProjectsPage() {
  const { data, error, reload } = useQuery('/containers/json?all=1&pods=1', { types: ['container'] });
  const [, redraw] = useState(0);
  useEffect(() => observed.subscribe((kind) => { if (kind === 'isolation') redraw((n) => n + 1); }), []);
  const groups = groupsOf(data ?? []);
  return html`<div class="projects-page"><${PageHead} title=${t('projects.title')} about=${t('projects.lead')} /><${ErrorBox} error=${error} />
    ${data && !groups.length ? html`<${Empty} title=${t('projects.none')} />` : null}
    ${groups.map((group) => html`<${Group} key=${`${group.kind} ${group.name}`} group=${group} reload=${reload} />`)}</div>`;
}

export const page = { words, View: ProjectsPage };
