// Volumes: the list with sizes and users, create and remove.
import {html, useMemo, useQuery, useState, PageHead, Table, Search, Badge, Empty, ErrorBox, Menu, confirm, attempt, toast, icon} from '../ui.js';
import {send} from '../api.js';
import {t} from '../i18n.js';
import {ago, bytes, containerName} from '../format.js';

const words = {
  en: {
    'volumes.title': 'Volumes',
    'volumes.about': 'Data that outlives containers.',
    'volumes.name': 'Name',
    'volumes.users': 'Containers',
    'volumes.size': 'Size',
    'volumes.created': 'Created',
    'volumes.create': 'New volume',
    'volumes.createTitle': 'Create a volume',
    'volumes.shared': 'Other users of the engine may use it',
    'volumes.removeTitle': 'Remove {name}?',
    'volumes.removeText': 'All of its data is lost.',
    'volumes.pruneTitle': 'Remove unused volumes?',
    'volumes.pruneAll': 'Named ones, too',
    'volumes.pruned': '{size} freed',
    'volumes.none': 'No volumes yet',
    'volumes.anonymous': 'anonymous',
    'volumes.unused': 'unused',
  },
  es: {
    'volumes.title': 'Volúmenes',
    'volumes.about': 'Datos que sobreviven a los contenedores.',
    'volumes.name': 'Nombre',
    'volumes.users': 'Contenedores',
    'volumes.size': 'Tamaño',
    'volumes.created': 'Creado',
    'volumes.create': 'Nuevo volumen',
    'volumes.createTitle': 'Crear un volumen',
    'volumes.shared': 'Otros usuarios del motor pueden usarlo',
    'volumes.removeTitle': '¿Eliminar {name}?',
    'volumes.removeText': 'Se pierden todos sus datos.',
    'volumes.pruneTitle': '¿Eliminar los volúmenes sin uso?',
    'volumes.pruneAll': 'También los que tienen nombre',
    'volumes.pruned': '{size} liberados',
    'volumes.none': 'Aún no hay volúmenes',
    'volumes.anonymous': 'anónimo',
    'volumes.unused': 'sin uso',
  },
};

const ANONYMOUS = /^[0-9a-f]{64}$/;

function View() {
  const {data, error, loading, reload} = useQuery('/volumes', {types: ['volume']});
  const containers = useQuery('/containers/json?all=1', {types: ['container']});
  const usage = useQuery('/system/df?verbose=1&type=volume', {types: ['volume', 'container']});
  const [text, setText] = useState('');
  const volumes = data?.Volumes || [];
  const users = useMemo(() => {
    const map = new Map();
    for (const container of containers.data || [])
      for (const mount of container.Mounts || [])
        if (mount.Type === 'volume') map.set(mount.Name, [...(map.get(mount.Name) || []), container]);
    return map;
  }, [containers.data]);
  const sizes = useMemo(() => new Map((usage.data?.VolumeUsage?.Items || []).map(volume => [volume.Name, volume.UsageData?.Size ?? -1])), [usage.data]);
  const needle = text.toLowerCase();
  const shown = volumes.filter(volume => volume.Name.toLowerCase().includes(needle));
  const columns = [
    {key: 'name', title: t('volumes.name'), sort: volume => volume.Name, render: volume => (ANONYMOUS.test(volume.Name) ? html`<code title=${volume.Name}>${volume.Name.slice(0, 16)}</code> <${Badge}>${t('volumes.anonymous')}<//>` : html`<strong>${volume.Name}</strong>`)},
    {key: 'users', title: t('volumes.users'), sort: volume => -(users.get(volume.Name) || []).length, render: volume => {
      const list = users.get(volume.Name) || [];
      return list.length ? html`<span class="row">${list.map(container => html`<a class="button ghost small" href=${`#/containers/${container.Id}`}>${containerName(container)}</a>`)}</span>` : html`<span class="faint">${t('volumes.unused')}</span>`;
    }},
    {key: 'created', title: t('volumes.created'), hide: 'phone', align: 'right', sort: volume => -Date.parse(volume.CreatedAt), render: volume => html`<span class="soft small">${ago(volume.CreatedAt)}</span>`},
    {key: 'size', title: t('volumes.size'), align: 'right', sort: volume => sizes.get(volume.Name) || 0, render: volume => bytes(sizes.get(volume.Name))},
  ];
  return html`<${PageHead} title=${t('volumes.title')} about=${t('volumes.about')}>
      <${Search} value=${text} onInput=${setText} />
      <button class="primary" onClick=${async () => {
        const values = await confirm({title: t('volumes.createTitle'), action: t('action.create'), fields: [{name: 'name', label: t('volumes.name')}, {name: 'shared', type: 'checkbox', label: t('volumes.shared'), value: false}]});
        if (values && await attempt(() => send('POST', '/volumes/create', {Name: values.name, Labels: values.shared ? {'io.jaula.shared': ''} : {}}))) reload();
      }}>${icon('add', 16)} ${t('volumes.create')}</button>
      <${Menu} label=${t('action.actions')} items=${[{text: t('action.prune'), icon: 'remove', danger: true, run: async () => {
        const values = await confirm({title: t('volumes.pruneTitle'), text: t('volumes.removeText'), danger: true, action: t('action.prune'), fields: [{name: 'all', type: 'checkbox', label: t('volumes.pruneAll'), value: false}]});
        if (values) await attempt(async () => {
          const filters = values.all ? `?filters=${encodeURIComponent(JSON.stringify({all: ['true']}))}` : '';
          const report = await send('POST', `/volumes/prune${filters}`);
          toast(t('volumes.pruned', {size: bytes(report.SpaceReclaimed || 0)}));
          reload();
        });
      }}]} />
    <//>
    <${ErrorBox} error=${error} />
    <${Table} label=${t('volumes.title')} columns=${columns} rows=${shown} rowKey=${volume => volume.Name} actions=${volume => html`<button class="ghost" aria-label=${`${t('action.remove')}: ${volume.Name}`} title=${t('action.remove')} onClick=${async () => {
      if (await confirm({title: t('volumes.removeTitle', {name: volume.Name}), text: t('volumes.removeText'), danger: true, action: t('action.remove')}) && await attempt(() => send('DELETE', `/volumes/${encodeURIComponent(volume.Name)}`))) reload();
    }}>${icon('remove')}</button>`} empty=${!loading && html`<${Empty} title=${t('volumes.none')} />`} />`;
}

export const page = {words, View};
