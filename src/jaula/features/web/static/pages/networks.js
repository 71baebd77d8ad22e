// Networks: the list, their members, create, connect and remove.
import {html, useEffect, useMemo, useQuery, useState, PageHead, Table, Search, Badge, Empty, ErrorBox, Menu, Id, confirm, attempt, toast, icon} from '../ui.js';
import {get, onEvent, send} from '../api.js';
import {t} from '../i18n.js';

const words = {
  en: {
    'networks.title': 'Networks',
    'networks.about': 'Containers reach each other only on a network that both are on.',
    'networks.name': 'Name',
    'networks.driver': 'Driver',
    'networks.subnet': 'Subnet',
    'networks.members': 'Containers',
    'networks.internal': 'internal',
    'networks.create': 'New network',
    'networks.createTitle': 'Create a network',
    'networks.subnetHint': 'Subnet (empty: chosen by the engine)',
    'networks.internalLong': 'Internal: no way out',
    'networks.ipv6': 'IPv6 too',
    'networks.connect': 'Connect a container',
    'networks.connectTitle': 'Connect a container to {name}',
    'networks.container': 'Container',
    'networks.alias': 'Alias (optional)',
    'networks.disconnect': 'Disconnect {name}',
    'networks.removeTitle': 'Remove {name}?',
    'networks.pruneTitle': 'Remove all networks without containers?',
    'networks.pruned': ['{count} network removed', '{count} networks removed'],
    'networks.none': 'No networks',
  },
  es: {
    'networks.title': 'Redes',
    'networks.about': 'Los contenedores solo se alcanzan en una red en la que están ambos.',
    'networks.name': 'Nombre',
    'networks.driver': 'Controlador',
    'networks.subnet': 'Subred',
    'networks.members': 'Contenedores',
    'networks.internal': 'interna',
    'networks.create': 'Nueva red',
    'networks.createTitle': 'Crear una red',
    'networks.subnetHint': 'Subred (vacía: la elige el motor)',
    'networks.internalLong': 'Interna: sin salida',
    'networks.ipv6': 'También IPv6',
    'networks.connect': 'Conectar un contenedor',
    'networks.connectTitle': 'Conectar un contenedor a {name}',
    'networks.container': 'Contenedor',
    'networks.alias': 'Alias (opcional)',
    'networks.disconnect': 'Desconectar {name}',
    'networks.removeTitle': '¿Eliminar {name}?',
    'networks.pruneTitle': '¿Eliminar todas las redes sin contenedores?',
    'networks.pruned': ['{count} red eliminada', '{count} redes eliminadas'],
    'networks.none': 'No hay redes',
  },
};

const FIXED = ['bridge', 'host', 'none'];

// Returns the members of each network, and an error. The list has no members; those of each network
// are in its own document.
function useMembers(networks) {
  const [members, setMembers] = useState({});
  const [error, setError] = useState(null);
  useEffect(() => {
    let stopped = false;
    const absent = failure => {
      if (failure.status !== 404) throw failure; // it was removed meanwhile
      return null;
    };
    const load = () => Promise.all(networks.map(network => get(`/networks/${network.Id}`).catch(absent))).then(all => {
      if (stopped) return;
      setError(null);
      setMembers(Object.fromEntries(all.filter(Boolean).map(network => [network.Id, Object.entries(network.Containers || {}).map(([id, endpoint]) => ({id, name: endpoint.Name, address: endpoint.IPv4Address || endpoint.IPv6Address || ''}))])));
    }).catch(failure => !stopped && setError(failure));
    load();
    const off = onEvent(['network'], event => ['connect', 'disconnect'].includes(event.Action) && load());
    return () => {
      stopped = true;
      off();
    };
  }, [networks]);
  return {members, error};
}

function View() {
  const {data, error, loading} = useQuery('/networks', {types: ['network']});
  const [text, setText] = useState('');
  const networks = useMemo(() => data || [], [data]);
  const {members, error: membersError} = useMembers(networks);
  const needle = text.toLowerCase();
  const shown = networks.filter(network => [network.Name, network.Id, ...(members[network.Id] || []).map(member => member.name)].some(value => value.toLowerCase().includes(needle)));

  const create = async () => {
    const values = await confirm({title: t('networks.createTitle'), action: t('action.create'), fields: [
      {name: 'name', label: t('networks.name')},
      {name: 'subnet', label: t('networks.subnetHint'), optional: true},
      {name: 'internal', type: 'checkbox', label: t('networks.internalLong'), value: false},
      {name: 'ipv6', type: 'checkbox', label: t('networks.ipv6'), value: false},
    ]});
    if (!values) return;
    const body = {Name: values.name, Driver: 'bridge', Internal: values.internal, EnableIPv6: values.ipv6};
    if (values.subnet) body.IPAM = {Config: [{Subnet: values.subnet}]};
    await attempt(() => send('POST', '/networks/create', body));
  };
  const actions = network => [
    {text: t('networks.connect'), icon: 'add', run: async () => {
      const values = await confirm({title: t('networks.connectTitle', {name: network.Name}), action: t('networks.connect'), fields: [{name: 'container', label: t('networks.container')}, {name: 'alias', label: t('networks.alias'), optional: true}]});
      if (values) await attempt(() => send('POST', `/networks/${network.Id}/connect`, {Container: values.container, EndpointConfig: values.alias ? {Aliases: [values.alias]} : {}}));
    }},
    ...(members[network.Id] || []).map(member => ({text: t('networks.disconnect', {name: member.name}), icon: 'close', run: () => attempt(() => send('POST', `/networks/${network.Id}/disconnect`, {Container: member.id}))})),
    !FIXED.includes(network.Name) && {text: t('action.remove'), icon: 'remove', danger: true, run: async () => {
      if (await confirm({title: t('networks.removeTitle', {name: network.Name}), danger: true, action: t('action.remove')})) await attempt(() => send('DELETE', `/networks/${network.Id}`));
    }},
  ];
  const columns = [
    {key: 'name', title: t('networks.name'), sort: network => network.Name, render: network => html`<strong>${network.Name}</strong> ${network.Internal && html`<${Badge} kind="holds">${t('networks.internal')}<//>`}<br /><${Id} value=${network.Id} />`},
    {key: 'driver', title: t('networks.driver'), hide: 'phone', sort: network => network.Driver, render: network => network.Driver},
    {key: 'subnet', title: t('networks.subnet'), hide: 'phone', render: network => (network.IPAM?.Config || []).map(pool => html`<code>${pool.Subnet}</code><br />`)},
    {key: 'members', title: t('networks.members'), sort: network => -(members[network.Id] || []).length, render: network => html`<span class="row">${(members[network.Id] || []).map(member => html`<a class="button ghost small" href=${`#/containers/${member.id}`} title=${member.address}>${member.name}</a>`)}</span>`},
  ];
  return html`<${PageHead} title=${t('networks.title')} about=${t('networks.about')}>
      <${Search} value=${text} onInput=${setText} />
      <button class="primary" onClick=${create}>${icon('add', 16)} ${t('networks.create')}</button>
      <${Menu} label=${t('action.actions')} items=${[{text: t('action.prune'), icon: 'remove', danger: true, run: async () => {
        if (await confirm({title: t('networks.pruneTitle'), danger: true, action: t('action.prune')})) await attempt(async () => {
          const report = await send('POST', '/networks/prune');
          toast(t('networks.pruned', {count: (report?.NetworksDeleted || []).length}));
        });
      }}]} />
    <//>
    <${ErrorBox} error=${error || membersError} />
    <${Table} label=${t('networks.title')} columns=${columns} rows=${shown} rowKey=${network => network.Id} actions=${network => html`<${Menu} label=${`${t('action.actions')}: ${network.Name}`} items=${actions(network)} />`} empty=${!loading && html`<${Empty} title=${t('networks.none')} />`} />`;
}

export const page = {words, View};
