// One container: overview, logs, terminal, files, processes, inspect.
import {html, useQuery, useState, PageHead, Card, Facts, Badge, StateBadge, Tabs, Table, ErrorBox, Menu, Cell, Id, Copy, Empty, icon} from '../ui.js';
import {t} from '../i18n.js';
import {go} from '../router.js';
import {ago, date, memory} from '../format.js';
import {podOf, projectOf, roleOf} from '../groups.js';
import {containerActions, addContainerWords} from './containers.js';
import {Logs} from './container/logs.js';
import {Terminals} from './container/terminal.js';
import {Files} from './container/files.js';
import {style} from '../styles.js';

await style('pages/container.css');

const words = {
  en: {
    'container.tab.overview': 'Overview',
    'container.tab.logs': 'Logs',
    'container.tab.terminal': 'Terminal',
    'container.tab.files': 'Files',
    'container.tab.processes': 'Processes',
    'container.tab.changes': 'Changes',
    'container.tab.inspect': 'Inspect',
    'container.tabs': 'Parts of the container',
    'container.gone': 'The container does not exist any more',
    'container.process': 'Process',
    'container.command': 'Command',
    'container.user': 'User',
    'container.directory': 'Directory',
    'container.started': 'Started',
    'container.finished': 'Finished',
    'container.exit': 'Exit code',
    'container.oom': 'killed: out of memory',
    'container.restartPolicy': 'Restart policy',
    'container.restarts': 'Restarts',
    'container.health': 'Health',
    'container.owner': 'Owner',
    'container.group': 'Project or pod',
    'container.profile': 'Profile',
    'container.isolation': 'Isolation',
    'container.isolationAbout': 'Requested at its creation, from the outside in.',
    'container.inEffect': 'What is in effect',
    'container.why': 'Why is something refused?',
    'container.usage': 'Usage over time',
    'container.noRelaxation': 'Nothing is relaxed.',
    'container.relaxed': ['{count} relaxation', '{count} relaxations'],
    'container.limits': 'Limits',
    'container.memory': 'Memory',
    'container.swap': 'Memory and swap',
    'container.cpus': 'CPUs',
    'container.pids': 'Processes',
    'container.unlimited': 'no limit',
    'container.networks': 'Networks',
    'container.ports': 'Published ports',
    'container.mounts': 'Mounts',
    'container.readonly': 'read-only',
    'container.writable': 'writable',
    'container.environment': 'Environment',
    'container.show': 'Show the values',
    'container.hide': 'Hide the values',
    'container.labels': 'Labels',
    'container.none': 'none',
    'container.layer.user': 'User namespace',
    'container.layer.pid': 'Process namespace',
    'container.layer.network': 'Network namespace',
    'container.layer.ipc': 'IPC namespace',
    'container.layer.capabilities': 'Capabilities',
    'container.layer.seccomp': 'System call filter',
    'container.layer.mac': 'Landlock or AppArmor',
    'container.layer.proc': 'Masked kernel paths',
    'container.layer.root': 'Root file system',
    'container.own': 'its own',
    'container.hosts': 'of the host',
    'container.defaultCaps': 'default',
    'container.dropped': 'dropped {list}',
    'container.added': 'added {list}',
    'container.filtered': 'default filter',
    'container.unconfined': 'off',
    'container.masked': '{count} paths',
    'container.change.0': 'changed',
    'container.change.1': 'added',
    'container.change.2': 'deleted',
    'container.noChanges': 'Nothing was changed since its creation',
    'container.notRunning': 'The container does not run',
    'container.changes': 'Changes of the root file system',
  },
  es: {
    'container.tab.overview': 'Resumen',
    'container.tab.logs': 'Registros',
    'container.tab.terminal': 'Terminal',
    'container.tab.files': 'Archivos',
    'container.tab.processes': 'Procesos',
    'container.tab.changes': 'Cambios',
    'container.tab.inspect': 'Inspección',
    'container.tabs': 'Partes del contenedor',
    'container.gone': 'El contenedor ya no existe',
    'container.process': 'Proceso',
    'container.command': 'Orden',
    'container.user': 'Usuario',
    'container.directory': 'Directorio',
    'container.started': 'Iniciado',
    'container.finished': 'Terminado',
    'container.exit': 'Código de salida',
    'container.oom': 'matado: sin memoria',
    'container.restartPolicy': 'Política de reinicio',
    'container.restarts': 'Reinicios',
    'container.health': 'Salud',
    'container.owner': 'Propietario',
    'container.group': 'Proyecto o pod',
    'container.profile': 'Perfil',
    'container.isolation': 'Aislamiento',
    'container.isolationAbout': 'Lo pedido al crearlo, de fuera adentro.',
    'container.inEffect': 'Lo que está en vigor',
    'container.why': '¿Por qué se rechaza algo?',
    'container.usage': 'Uso en el tiempo',
    'container.noRelaxation': 'Nada está relajado.',
    'container.relaxed': ['{count} relajación', '{count} relajaciones'],
    'container.limits': 'Límites',
    'container.memory': 'Memoria',
    'container.swap': 'Memoria e intercambio',
    'container.cpus': 'CPU',
    'container.pids': 'Procesos',
    'container.unlimited': 'sin límite',
    'container.networks': 'Redes',
    'container.ports': 'Puertos publicados',
    'container.mounts': 'Montajes',
    'container.readonly': 'solo lectura',
    'container.writable': 'escritura',
    'container.environment': 'Entorno',
    'container.show': 'Mostrar los valores',
    'container.hide': 'Ocultar los valores',
    'container.labels': 'Etiquetas',
    'container.none': 'ninguno',
    'container.layer.user': 'Espacio de usuarios',
    'container.layer.pid': 'Espacio de procesos',
    'container.layer.network': 'Espacio de red',
    'container.layer.ipc': 'Espacio de IPC',
    'container.layer.capabilities': 'Capacidades',
    'container.layer.seccomp': 'Filtro de llamadas al sistema',
    'container.layer.mac': 'Landlock o AppArmor',
    'container.layer.proc': 'Rutas del núcleo ocultas',
    'container.layer.root': 'Sistema de archivos raíz',
    'container.own': 'propio',
    'container.hosts': 'del anfitrión',
    'container.defaultCaps': 'las de fábrica',
    'container.dropped': 'sin {list}',
    'container.added': 'más {list}',
    'container.filtered': 'filtro de fábrica',
    'container.unconfined': 'desactivado',
    'container.masked': '{count} rutas',
    'container.change.0': 'cambiado',
    'container.change.1': 'añadido',
    'container.change.2': 'borrado',
    'container.noChanges': 'Nada ha cambiado desde su creación',
    'container.notRunning': 'El contenedor no está en marcha',
    'container.changes': 'Cambios del sistema de archivos raíz',
  },
};
for (const code of ['en', 'es']) Object.assign(words[code], addContainerWords[code], Logs.words[code], Terminals.words[code], Files.words[code]);

const TABS = [['overview', 'inspect'], ['logs', 'logs'], ['terminal', 'terminal'], ['files', 'files'], ['processes', 'processes'], ['changes', 'rename'], ['inspect', 'file']];

// Returns the layers of isolation that a container requested, from the outside in. Pure.
export function requestedLayers(inspect) {
  const host = inspect.HostConfig || {};
  const options = host.SecurityOpt || [];
  const namespace = mode => (mode === 'host' ? ['fails', t('container.hosts')] : String(mode || '').startsWith('container:') ? ['relaxed', mode] : ['holds', t('container.own')]);
  const caps = () => {
    if (host.Privileged) return ['fails', '--privileged'];
    const added = host.CapAdd || [];
    const dropped = host.CapDrop || [];
    const text = [added.length && t('container.added', {list: added.join(' ')}), dropped.length && t('container.dropped', {list: dropped.join(' ')})].filter(Boolean).join(', ');
    return [added.length ? 'relaxed' : 'holds', text || t('container.defaultCaps')];
  };
  const off = (name, isOff, text) => [isOff ? 'fails' : 'holds', isOff ? t('container.unconfined') : text, name];
  const seccomp = options.find(option => option.startsWith('seccomp='));
  const mac = [inspect.Landlock && 'Landlock', inspect.AppArmorProfile && `AppArmor ${inspect.AppArmorProfile}`].filter(Boolean).join(', ');
  const masked = (host.MaskedPaths || []).length;
  return [
    ['user', ...namespace(host.UsernsMode)],
    ['network', ...namespace(host.NetworkMode)],
    ['pid', ...namespace(host.PidMode)],
    ['ipc', ...namespace(host.IpcMode)],
    ['root', 'holds', host.ReadonlyRootfs ? t('container.readonly') : t('container.writable')],
    ['proc', masked ? 'holds' : 'fails', masked ? t('container.masked', {count: masked}) : t('container.unconfined')],
    ['mac', mac ? 'holds' : 'relaxed', mac || t('container.unconfined')],
    ['capabilities', ...caps()],
    ['seccomp', ...off('seccomp', host.Privileged || seccomp === 'seccomp=unconfined', seccomp?.slice(8, 80) || t('container.filtered')).slice(0, 2)],
  ];
}

function Isolation({inspect}) {
  const layers = requestedLayers(inspect);
  const relaxations = inspect.Relaxations || [];
  return html`<${Card} title=${t('container.isolation')} className="isolation" actions=${html`<${Badge} kind=${relaxations.length ? 'relaxed' : 'holds'}>${relaxations.length ? t('container.relaxed', {count: relaxations.length}) : t('container.noRelaxation')}<//>`}>
    <div class="isolation-body">
      <${Cell} size=${150} layers=${layers.map(([, state]) => state)} core=${inspect.State?.Running ? 'on' : 'off'} />
      <ol>${layers.map(([name, state, text]) => html`<li class=${state}><span>${t(`container.layer.${name}`)}</span><span class="soft">${text}</span></li>`)}</ol>
    </div>
    ${relaxations.length > 0 && html`<p class="relaxations">${relaxations.map(value => html`<${Badge} kind="relaxed">${typeof value === 'string' ? value : JSON.stringify(value)}<//> `)}</p>`}
    <p class="small soft row"><span>${t('container.isolationAbout')}</span><a href=${`#/verify?c=${inspect.Id}`}>${t('container.inEffect')}</a><a href=${`#/why?c=${inspect.Id}`}>${t('container.why')}</a></p>
  <//>`;
}

function Environment({values}) {
  const [shown, setShown] = useState(false);
  return html`<${Card} title=${t('container.environment')} actions=${html`<button class="ghost small" onClick=${() => setShown(!shown)}>${shown ? t('container.hide') : t('container.show')}</button>`}>
    <${Facts} rows=${values.map(value => {
      const [name, ...rest] = value.split('=');
      return [html`<code>${name}</code>`, html`<code>${shown ? rest.join('=') : '••••••'}</code>`];
    })} />
    ${!values.length && html`<p class="faint">${t('container.none')}</p>`}
  <//>`;
}

function Overview({inspect}) {
  const {State: state, Config: config, HostConfig: host, NetworkSettings: network} = inspect;
  const size = value => (value > 0 ? memory(value) : t('container.unlimited'));
  const cpus = host.NanoCpus ? host.NanoCpus / 1e9 : host.CpuQuota > 0 ? host.CpuQuota / (host.CpuPeriod || 100000) : 0;
  const labels = Object.entries(config.Labels || {});
  const entry = {Labels: config.Labels, Pod: inspect.Pod};
  const group = projectOf(entry) || podOf(entry);
  const ports = Object.entries(network.Ports || {}).flatMap(([port, bindings]) => (bindings || []).map(binding => `${binding.HostIp.includes(':') ? `[${binding.HostIp}]` : binding.HostIp}:${binding.HostPort} → ${port}`));
  return html`<div class="overview">
    <${Isolation} inspect=${inspect} />
    <div class="cards">
      <${Card} title=${t('container.process')}><${Facts} rows=${[
        [t('container.command'), html`<code>${[inspect.Path, ...(inspect.Args || [])].join(' ')}</code>`],
        ['PID', state.Pid || ''],
        [t('container.user'), config.User],
        [t('container.directory'), config.WorkingDir && html`<code>${config.WorkingDir}</code>`],
        [t('container.started'), state.StartedAt && !state.StartedAt.startsWith('0001') && html`<span title=${date(state.StartedAt)}>${ago(state.StartedAt)}</span>`],
        [t('container.finished'), !state.Running && !state.FinishedAt.startsWith('0001') && html`<span title=${date(state.FinishedAt)}>${ago(state.FinishedAt)}</span>`],
        [t('container.exit'), !state.Running && state.Status !== 'created' && html`<${Badge} kind=${state.ExitCode ? 'fails' : 'holds'}>${state.ExitCode}<//> ${state.OOMKilled ? t('container.oom') : ''} ${state.Error}`],
        [t('container.health'), state.Health && html`<${Badge} kind=${state.Health.Status === 'healthy' ? 'holds' : state.Health.Status === 'unhealthy' ? 'fails' : 'relaxed'}>${state.Health.Status}<//>`],
        [t('container.restartPolicy'), host.RestartPolicy?.Name],
        [t('container.restarts'), inspect.RestartCount || ''],
        [t('container.owner'), inspect.Owner],
        [t('container.group'), group && html`<a href="#/projects">${group}</a> ${roleOf(entry)}`],
        [t('container.profile'), host.Profile && String(host.Profile).slice(0, 60)],
      ]} /><//>
      <${Card} title=${t('container.limits')} actions=${html`<a class="small" href=${`#/stats?c=${inspect.Id}`}>${t('container.usage')}</a>`}><${Facts} rows=${[
        [t('container.memory'), size(host.Memory)],
        [t('container.swap'), size(host.MemorySwap)],
        [t('container.cpus'), cpus || t('container.unlimited')],
        [t('container.pids'), host.PidsLimit > 0 ? host.PidsLimit : t('container.unlimited')],
      ]} /><//>
      <${Card} title=${t('container.networks')}><${Facts} rows=${[
        ...Object.entries(network.Networks || {}).map(([name, endpoint]) => [html`<a href="#/networks">${name}</a>`, html`<code>${[endpoint.IPAddress, endpoint.GlobalIPv6Address].filter(Boolean).join(' ') || '–'}</code>`]),
        [t('container.ports'), ports.length > 0 && html`<span class="row">${ports.map(port => html`<${Badge}>${port}<//>`)}</span>`],
      ]} /><//>
      <${Card} title=${t('container.mounts')}>
        <${Facts} rows=${(inspect.Mounts || []).map(mount => [html`<code>${mount.Destination}</code>`, html`${mount.Type} ${mount.Name ? html`<a href="#/volumes">${mount.Name.slice(0, 24)}</a>` : html`<code>${mount.Source}</code>`} <${Badge} kind=${mount.RW ? 'plain' : 'holds'}>${mount.RW ? t('container.writable') : t('container.readonly')}<//>`])} />
        ${!inspect.Mounts?.length && html`<p class="faint">${t('container.none')}</p>`}
      <//>
      <${Environment} values=${config.Env || []} />
      ${labels.length > 0 && html`<${Card} title=${t('container.labels')}><${Facts} rows=${labels.map(([key, value]) => [html`<code>${key}</code>`, value])} /><//>`}
    </div>
  </div>`;
}

function Processes({id, running}) {
  const {data, error} = useQuery(running ? `/containers/${encodeURIComponent(id)}/top` : null, {every: 3000});
  if (!running) return html`<${Empty} title=${t('container.notRunning')} mark=${false} />`;
  const columns = (data?.Titles || []).map((title, i) => ({key: title, title, sort: row => row[i], render: row => html`<span class="mono small ${i < data.Titles.length - 1 ? 'nowrap' : ''}">${row[i]}</span>`, hide: i > 2 && i < data.Titles.length - 1 ? 'phone' : ''}));
  if (!data && !error) return html`<div class="loading"></div>`;
  return html`<${ErrorBox} error=${error} /><${Table} label=${t('container.tab.processes')} columns=${columns} rows=${data?.Processes || []} rowKey=${row => row.join(' ')} />`;
}

function Changes({id}) {
  const {data, error, loading} = useQuery(`/containers/${encodeURIComponent(id)}/changes`);
  const rows = data || []; // null for none, as in Docker's API
  if (loading) return html`<div class="loading"></div>`;
  return html`<${ErrorBox} error=${error} /><${Table} label=${t('container.changes')} rows=${rows.slice(0, 2000)} rowKey=${row => row.Path} empty=${!error && html`<${Empty} title=${t('container.noChanges')} mark=${false} />`} columns=${[
    {key: 'kind', title: '', render: row => html`<${Badge} kind=${['plain', 'holds', 'fails'][row.Kind]}>${t(`container.change.${row.Kind}`)}<//>`},
    {key: 'path', title: t('container.changes'), sort: row => row.Path, render: row => html`<code>${row.Path}</code>`},
  ]} />`;
}

function View({id, query}) {
  const {data, error} = useQuery(`/containers/${encodeURIComponent(id)}/json`, {types: ['container'], every: 30000});
  const tab = TABS.some(([name]) => name === query.get('tab')) ? query.get('tab') : 'overview';
  const back = {href: '#/containers', text: t('containers.title')};
  if (error?.status === 404) return html`<${PageHead} title=${t('container.gone')} back=${back} />`;
  if (!data) return html`<${PageHead} title=${id.slice(0, 12)} back=${back} /><${ErrorBox} error=${error} />`;
  const name = data.Name.replace(/^\//, '');
  const state = data.State.Status;
  const actions = containerActions({id: data.Id, name, state, after: () => go('/containers')});
  const main = actions.slice(0, 2);
  return html`<${PageHead} title=${name} back=${back} about=${html`<span class="row"><${StateBadge} state=${state} /><span>${data.Config.Image}</span><${Id} value=${data.Id} /><${Copy} text=${data.Id} /></span>`}>
      ${main.map(action => html`<button class=${action.icon === 'start' ? 'primary' : ''} onClick=${action.run}>${icon(action.icon, 16)} ${action.text}</button>`)}
      <${Menu} items=${actions.slice(2)} label=${t('action.actions')} />
    <//>
    <${ErrorBox} error=${error} />
    <${Tabs} label=${t('container.tabs')} current=${tab} href=${name_ => `#/containers/${encodeURIComponent(id)}${name_ === 'overview' ? '' : `?tab=${name_}`}`} items=${TABS.map(([name_, icon_]) => ({id: name_, icon: icon_, text: t(`container.tab.${name_}`)}))} />
    ${tab === 'overview' && html`<${Overview} inspect=${data} />`}
    ${tab === 'logs' && html`<${Logs} id=${data.Id} name=${name} tty=${data.Config.Tty} started=${data.State.StartedAt} />`}
    ${tab === 'terminal' && html`<${Terminals} id=${data.Id} state=${state} tty=${data.Config.Tty} stdin=${data.Config.OpenStdin} />`}
    ${tab === 'files' && html`<${Files} id=${data.Id} path=${query.get('path') || '/'} />`}
    ${tab === 'processes' && html`<${Processes} id=${data.Id} running=${state === 'running'} />`}
    ${tab === 'changes' && html`<${Changes} id=${data.Id} />`}
    ${tab === 'inspect' && html`<div class="inspect"><${Copy} text=${JSON.stringify(data, null, 2)} /><pre class="code" tabindex="0">${JSON.stringify(data, null, 2)}</pre></div>`}`;
}

export const page = {words, View};
