// Compose projects and pods as groups, with actions on all of their containers.

import { html, ErrorBox, PageHead, Empty, StateBadge, confirm, toast, useEffect, useState } from '../ui.js';
import { get, onEvent, send } from '../api.js';
import { t } from '../i18n.js';
import { style } from '../styles.js';
import { containerName } from '../format.js';
import { observed } from '../observed.js';
import { Strip } from './verify.js';
import words from '../i18n/map.js';

await style('pages/map.css');

const LABEL = 'com.docker.compose.';

/** Return the groups of a list of containers: `{kind, name, detail, members}`. Pure. */
export function groupsOf(containers) {
  const groups = new Map();
  for (const each of containers) {
    const project = each.Labels?.[`${LABEL}project`];
    const pod = each.Pod ? `${each.Pod.Namespace}/${each.Pod.Name}` : '';
    if (!project && !pod) continue;
    const key = pod ? `pod ${pod}` : `project ${project}`;
    if (!groups.has(key)) {
      groups.set(key, { kind: pod ? 'pod' : 'project', name: pod || project, detail: each.Labels?.[`${LABEL}project.working_dir`] ?? '', members: [] });
    }
    groups.get(key).members.push(each);
  }
  return [...groups.values()].sort((a, b) => a.kind.localeCompare(b.kind) || a.name.localeCompare(b.name));
}

/** Return the services in the order in which they can be started: those without dependencies first. Pure. */
export function startOrder(members) {
  const service = (each) => each.Labels?.[`${LABEL}service`] ?? each.Id;
  const needs = (each) => (each.Labels?.[`${LABEL}depends_on`] ?? '').split(',').map((one) => one.split(':')[0]).filter(Boolean);
  const done = new Set();
  const ordered = [];
  const visit = (each, path) => {
    if (done.has(each.Id) || path.has(each.Id)) return;
    path.add(each.Id);
    for (const need of needs(each)) for (const other of members) if (service(other) === need) visit(other, path);
    done.add(each.Id);
    ordered.push(each);
  };
  for (const each of members) visit(each, new Set());
  return ordered;
}

function Group({ group }) {
  const [progress, setProgress] = useState('');
  const running = group.members.filter((each) => each.State === 'running').length;
  const act = async (verb) => {
    const action = t(`projects.${verb}`);
    const asked = await confirm({ title: `${action} ${group.name}`, text: t('projects.confirm', { count: group.members.length, name: group.name }), action: t('projects.yes', { action: action.toLowerCase() }), danger: verb !== 'start' });
    if (!asked) return;
    const order = verb === 'stop' ? startOrder(group.members).reverse() : startOrder(group.members);
    const failures = [];
    let done = 0;
    for (const each of order) {
      setProgress(t('projects.doing', { action, done, all: order.length }));
      try {
        await send('POST', `/containers/${each.Id}/${verb}`);
      } catch (error) {
        if (error.status !== 304) failures.push(`${containerName(each)}: ${error.message}`);
      }
      done += 1;
    }
    setProgress('');
    if (failures.length) toast(t('projects.failed', { count: failures.length, message: failures[0] }), 'error');
    else toast(t('projects.done'));
  };
  return html`<section class="card project"><header><div><p class="kicker">${t(`projects.${group.kind}`)}</p><h2>${group.name}</h2>
      ${group.detail ? html`<p class="soft mono">${group.detail}</p>` : null}</div>
      <span class="soft">${t('projects.running', { running, all: group.members.length })}</span>
      ${group.kind === 'project' ? html`<div class="buttons">${['start', 'stop', 'restart'].map((verb) => html`<button type="button" disabled=${progress !== '' || (verb === 'start' && running === group.members.length) || (verb === 'stop' && !running)}
        onClick=${() => act(verb)}>${t(`projects.${verb}`)}</button>`)}</div>` : null}</header>
    <p role="status" class="soft">${progress}</p>
    <div class="table-frame"><table aria-label=${group.name}><thead><tr><th scope="col">${t('map.container')}</th><th scope="col">${t('projects.service')}</th><th scope="col">${t('projects.state')}</th><th scope="col">${t('projects.isolation')}</th></tr></thead>
    <tbody>${group.members.map((each) => html`<tr key=${each.Id}><th scope="row"><a href=${`#/containers/${each.Id.slice(0, 12)}`}>${containerName(each)}</a></th>
      <td>${each.Labels?.[`${LABEL}service`] ?? each.Pod?.Container ?? ''}</td><td><${StateBadge} state=${each.State} text=${each.Status} /></td>
      <td>${observed.containers.get(each.Id)?.isolation ? html`<a href=${`#/map?c=${each.Id.slice(0, 12)}`} aria-label=${`${t('projects.isolation')} ${containerName(each)}`}><${Strip} layers=${observed.containers.get(each.Id).isolation.Layers} /></a>` : '–'}</td></tr>`)}</tbody></table></div></section>`;
}

function ProjectsPage() {
  const [containers, setContainers] = useState(null);
  const [error, setError] = useState(null);
  const [, redraw] = useState(0);
  useEffect(() => {
    let timer = 0;
    const read = () => { timer = 0; get('/containers/json?all=1&pods=1').then(setContainers, setError); };
    read();
    const off = onEvent(['container'], () => { timer ||= setTimeout(read, 200); });
    const end = observed.subscribe((kind) => { if (kind === 'isolation') redraw((n) => n + 1); });
    return () => { off(); end(); clearTimeout(timer); };
  }, []);
  const groups = groupsOf(containers ?? []);
  return html`<div class="projects-page"><${PageHead} title=${t('projects.title')} about=${t('projects.lead')} /><${ErrorBox} error=${error} />
    ${containers && !groups.length ? html`<${Empty} title=${t('projects.none')} />` : null}
    ${groups.map((group) => html`<${Group} key=${group.kind + group.name} group=${group} />`)}</div>`;
}

export const page = { words, View: ProjectsPage };
