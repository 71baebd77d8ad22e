// The list of containers, and the actions on them.
import {html, useState, useMemo, useQuery, PageHead, Table, Search, StateBadge, Badge, Empty, ErrorBox, Menu, Cell, Id, confirm, attempt, toast, icon, useStored} from '../ui.js';
import {send} from '../api.js';
import {t} from '../i18n.js';
import {go} from '../router.js';
import {ago, containerName, statusText} from '../format.js';
import {podOf, projectOf} from '../groups.js';

const words = {
  en: {
    'containers.title': 'Containers',
    'containers.about': '{running} of {count} running',
    'containers.name': 'Name',
    'containers.image': 'Image',
    'containers.state': 'State',
    'containers.ports': 'Ports',
    'containers.created': 'Created',
    'containers.project': 'Project or pod',
    'containers.all': 'Stopped ones too',
    'containers.none': 'No containers yet',
    'containers.noneFound': 'No container matches',
    'containers.first': 'Run the first one: it is isolated by default.',
    'containers.selected': ['{count} selected', '{count} selected'],
    'containers.done': '{name}: {action}',
    'containers.killTitle': 'Kill {name}?',
    'containers.killText': 'Its processes get the signal at once and cannot save anything.',
    'containers.signal': 'Signal',
    'containers.removeTitle': 'Remove {name}?',
    'containers.removeText': 'Its writable files are lost. Named volumes stay.',
    'containers.force': 'Kill it first if it runs',
    'containers.volumes': 'Remove its anonymous volumes too',
    'containers.renameTitle': 'Rename {name}',
    'containers.newName': 'New name',
    'containers.pruneTitle': 'Remove all stopped containers?',
    'containers.pruned': ['{count} container removed', '{count} containers removed'],
  },
  es: {
    'containers.title': 'Contenedores',
    'containers.about': '{running} de {count} en marcha',
    'containers.name': 'Nombre',
    'containers.image': 'Imagen',
    'containers.state': 'Estado',
    'containers.ports': 'Puertos',
    'containers.created': 'Creado',
    'containers.project': 'Proyecto o pod',
    'containers.all': 'También los detenidos',
    'containers.none': 'Aún no hay contenedores',
    'containers.noneFound': 'Ningún contenedor coincide',
    'containers.first': 'Ejecuta el primero: está aislado por defecto.',
    'containers.selected': ['{count} seleccionado', '{count} seleccionados'],
    'containers.done': '{name}: {action}',
    'containers.killTitle': '¿Matar {name}?',
    'containers.killText': 'Sus procesos reciben la señal al instante y no pueden guardar nada.',
    'containers.signal': 'Señal',
    'containers.removeTitle': '¿Eliminar {name}?',
    'containers.removeText': 'Se pierden los archivos que ha escrito. Los volúmenes con nombre quedan.',
    'containers.force': 'Matarlo antes si está en marcha',
    'containers.volumes': 'Eliminar también sus volúmenes anónimos',
    'containers.renameTitle': 'Renombrar {name}',
    'containers.newName': 'Nombre nuevo',
    'containers.pruneTitle': '¿Eliminar todos los contenedores detenidos?',
    'containers.pruned': ['{count} contenedor eliminado', '{count} contenedores eliminados'],
  },
};

const at = (id, verb) => `/containers/${encodeURIComponent(id)}/${verb}`;

// Returns the actions on a container as items of a menu. 'after' is called when it was removed.
export function containerActions({id, name, state, after}) {
  const run = (verb, word, query = '') => () =>
    attempt(() => send('POST', at(id, verb) + query), t('containers.done', {name, action: t(word)}));
  const running = state === 'running';
  const paused = state === 'paused';
  return [
    !running && !paused && {text: t('action.start'), icon: 'start', run: run('start', 'action.start')},
    (running || paused) && {text: t('action.stop'), icon: 'stop', run: run('stop', 'action.stop')},
    (running || paused) && {text: t('action.restart'), icon: 'restart', run: run('restart', 'action.restart')},
    running && {text: t('action.pause'), icon: 'pause', run: run('pause', 'action.pause')},
    paused && {text: t('action.unpause'), icon: 'start', run: run('unpause', 'action.unpause')},
    (running || paused) && {text: t('action.kill'), icon: 'kill', danger: true, run: async () => {
      const values = await confirm({title: t('containers.killTitle', {name}), text: t('containers.killText'), action: t('action.kill'), danger: true, fields: [{name: 'signal', label: t('containers.signal'), value: 'SIGKILL'}]});
      if (values) await run('kill', 'action.kill', `?signal=${encodeURIComponent(values.signal)}`)();
    }},
    {text: t('action.rename'), icon: 'rename', run: async () => {
      const values = await confirm({title: t('containers.renameTitle', {name}), action: t('action.rename'), fields: [{name: 'name', label: t('containers.newName'), value: name}]});
      if (values) await attempt(() => send('POST', `${at(id, 'rename')}?name=${encodeURIComponent(values.name)}`));
    }},
    {text: t('action.remove'), icon: 'remove', danger: true, run: async () => {
      const values = await confirm({title: t('containers.removeTitle', {name}), text: t('containers.removeText'), action: t('action.remove'), danger: true, fields: [
        ...(running || paused ? [{name: 'force', type: 'checkbox', label: t('containers.force'), value: false}] : []),
        {name: 'volumes', type: 'checkbox', label: t('containers.volumes'), value: true},
      ]});
      if (!values) return;
      const query = `?force=${values.force ? 1 : 0}&v=${values.volumes ? 1 : 0}`;
      if (await attempt(() => send('DELETE', `/containers/${encodeURIComponent(id)}${query}`), t('containers.done', {name, action: t('action.remove')}))) after?.();
    }},
  ].filter(Boolean);
}

export const addContainerWords = words;

export function portText(port) {
  if (!port.PublicPort) return `${port.PrivatePort}/${port.Type}`;
  const address = port.IP && port.IP !== '0.0.0.0' && port.IP !== '::' ? `${port.IP.includes(':') ? `[${port.IP}]` : port.IP}:` : '';
  return `${address}${port.PublicPort} → ${port.PrivatePort}${port.Type === 'tcp' ? '' : `/${port.Type}`}`;
}

const CORE = {running: 'on', paused: 'paused'};

function View() {
  const [all, setAll] = useStored('containers.all', true);
  const [text, setText] = useState('');
  const [selected, setSelected] = useState(new Set());
  const {data, error, loading} = useQuery(`/containers/json?all=${all ? 1 : 0}`, {types: ['container'], every: 30000});
  const rows = useMemo(() => (data || []).map(container => ({
    id: container.Id,
    name: containerName(container),
    image: container.Image,
    state: container.State,
    status: container.Status,
    created: container.Created,
    project: projectOf(container) || podOf(container),
    ports: [...new Set((container.Ports || []).map(portText))],
  })), [data]);
  const needle = text.toLowerCase();
  const shown = useMemo(() => rows.filter(row => [row.name, row.image, row.id, row.project, ...row.ports].some(value => value.toLowerCase().includes(needle))), [rows, needle]);
  const chosen = rows.filter(row => selected.has(row.id));

  const each = async (verb, word) => {
    await Promise.all(chosen.map(row => attempt(() => send('POST', at(row.id, verb)))));
    setSelected(new Set());
  };
  const removeChosen = async () => {
    const values = await confirm({title: t('containers.removeTitle', {name: t('containers.selected', {count: chosen.length})}), text: t('containers.removeText'), detail: chosen.map(row => row.name).join('\n'), danger: true, action: t('action.remove'), fields: [{name: 'force', type: 'checkbox', label: t('containers.force'), value: false}]});
    if (!values) return;
    await Promise.all(chosen.map(row => attempt(() => send('DELETE', `/containers/${row.id}?v=1&force=${values.force ? 1 : 0}`))));
    setSelected(new Set());
  };

  const columns = [
    {key: 'name', title: t('containers.name'), sort: row => row.name, render: row => html`<span class="row name-cell"><${Cell} size=${24} layers=${['edge', 'edge']} core=${CORE[row.state] || 'off'} /><span><a class="name" href=${`#/containers/${row.id}`}>${row.name}</a><br /><${Id} value=${row.id} /></span></span>`},
    {key: 'image', title: t('containers.image'), sort: row => row.image, render: row => html`<span class="image-name">${row.image}</span>`, hide: 'phone'},
    {key: 'state', title: t('containers.state'), sort: row => row.state, render: row => html`<${StateBadge} state=${row.state} /><br /><span class="small faint">${statusText(row.status)}</span>`},
    {key: 'ports', title: t('containers.ports'), hide: 'phone', render: row => row.ports.map(port => html`<${Badge}>${port}<//> `)},
    {key: 'project', title: t('containers.project'), hide: 'phone', sort: row => row.project, render: row => row.project && html`<a href="#/projects"><${Badge}>${row.project}<//></a>`},
    {key: 'created', title: t('containers.created'), hide: 'phone', align: 'right', sort: row => -row.created, render: row => html`<span class="soft small">${ago(row.created)}</span>`},
  ];

  return html`<${PageHead} title=${t('containers.title')} about=${data && t('containers.about', {running: rows.filter(row => row.state === 'running').length, count: rows.length})}>
      <${Search} value=${text} onInput=${setText} />
      <a class="button primary" href="#/create">${icon('add', 16)} ${t('nav.create')}</a>
    <//>
    <${ErrorBox} error=${error} />
    <div class="toolbar">
      <label class="check"><input type="checkbox" checked=${all} onChange=${event => setAll(event.currentTarget.checked)} /> ${t('containers.all')}</label>
      <span class="grow"></span>
      ${chosen.length > 0 && html`<span class="soft">${t('containers.selected', {count: chosen.length})}</span>
        <button onClick=${() => each('start')}>${icon('start', 16)} ${t('action.start')}</button>
        <button onClick=${() => each('stop')}>${icon('stop', 16)} ${t('action.stop')}</button>
        <button onClick=${() => each('restart')}>${icon('restart', 16)} ${t('action.restart')}</button>
        <button class="danger" onClick=${removeChosen}>${icon('remove', 16)} ${t('action.remove')}</button>`}
      ${!chosen.length && rows.some(row => row.state === 'exited') && html`<button class="ghost" onClick=${async () => {
        if (await confirm({title: t('containers.pruneTitle'), text: t('containers.removeText'), danger: true, action: t('action.prune')}))
          await attempt(async () => {
            const report = await send('POST', '/containers/prune');
            toast(t('containers.pruned', {count: (report.ContainersDeleted || []).length}));
          });
      }}>${icon('remove', 16)} ${t('action.prune')}</button>`}
    </div>
    <${Table} label=${t('containers.title')} columns=${columns} rows=${shown} rowKey=${row => row.id} href=${row => `#/containers/${row.id}`} selected=${selected} onSelect=${setSelected}
      actions=${row => html`<${Menu} label=${`${t('action.actions')}: ${row.name}`} items=${containerActions(row)} />`}
      empty=${!loading && (rows.length
        ? html`<${Empty} title=${t('containers.noneFound')} mark=${false} />`
        : html`<${Empty} title=${t('containers.none')}><p>${t('containers.first')}</p><a class="button primary" href="#/create">${t('nav.create')}</a><//>`)} />`;
}

export const page = {words, View};
