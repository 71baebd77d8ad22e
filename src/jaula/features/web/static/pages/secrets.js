// Secrets and configs: names, labels, create and remove. The content of a secret is never shown.
import {html, useQuery, useState, PageHead, Tabs, Table, Search, Badge, Empty, ErrorBox, Dialog, confirm, attempt, icon} from '../ui.js';
import {send} from '../api.js';
import {t} from '../i18n.js';
import {ago} from '../format.js';

const words = {
  en: {
    'secrets.title': 'Secrets and configs',
    'secrets.about': 'A secret is encrypted on the disk, and a file in memory inside a container.',
    'secrets.tab.secrets': 'Secrets',
    'secrets.tab.configs': 'Configs',
    'secrets.name': 'Name',
    'secrets.labels': 'Labels',
    'secrets.created': 'Created',
    'secrets.newSecrets': 'New secret',
    'secrets.newConfigs': 'New config',
    'secrets.data': 'Content',
    'secrets.removeTitle': 'Remove {name}?',
    'secrets.show': 'Show',
    'secrets.none': 'None yet',
    'secrets.noneAbout': 'Use one with --secret NAME or --config NAME.',
  },
  es: {
    'secrets.title': 'Secretos y configuraciones',
    'secrets.about': 'Un secreto está cifrado en el disco y es un archivo en memoria dentro de un contenedor.',
    'secrets.tab.secrets': 'Secretos',
    'secrets.tab.configs': 'Configuraciones',
    'secrets.name': 'Nombre',
    'secrets.labels': 'Etiquetas',
    'secrets.created': 'Creado',
    'secrets.newSecrets': 'Nuevo secreto',
    'secrets.newConfigs': 'Nueva configuración',
    'secrets.data': 'Contenido',
    'secrets.removeTitle': '¿Eliminar {name}?',
    'secrets.show': 'Mostrar',
    'secrets.none': 'Aún no hay ninguno',
    'secrets.noneAbout': 'Usa uno con --secret NOMBRE o --config NOMBRE.',
  },
};

const encode = text => btoa(Array.from(new TextEncoder().encode(text), byte => String.fromCharCode(byte)).join(''));
const decode = data => new TextDecoder().decode(Uint8Array.from(atob(data), character => character.charCodeAt(0)));

function View({query}) {
  const tab = query.get('tab') === 'configs' ? 'configs' : 'secrets';
  const {data, error, loading, reload} = useQuery(`/${tab}`, {types: ['secret', 'config']});
  const [text, setText] = useState('');
  const [shownConfig, setShownConfig] = useState(null);
  const rows = (data || []).filter(item => item.Spec.Name.toLowerCase().includes(text.toLowerCase()));
  const create = async () => {
    const values = await confirm({title: t(tab === 'secrets' ? 'secrets.newSecrets' : 'secrets.newConfigs'), action: t('action.create'), fields: [{name: 'name', label: t('secrets.name')}, {name: 'data', type: 'textarea', label: t('secrets.data')}]});
    if (values && await attempt(() => send('POST', `/${tab}/create`, {Name: values.name, Data: encode(values.data)}))) reload();
  };
  return html`<${PageHead} title=${t('secrets.title')} about=${t('secrets.about')}>
      <${Search} value=${text} onInput=${setText} />
      <button class="primary" onClick=${create}>${icon('add', 16)} ${t(tab === 'secrets' ? 'secrets.newSecrets' : 'secrets.newConfigs')}</button>
    <//>
    <${ErrorBox} error=${error} />
    <${Tabs} label=${t('secrets.title')} current=${tab} href=${id => `#/secrets${id === 'secrets' ? '' : '?tab=configs'}`} items=${[{id: 'secrets', icon: 'secrets', text: t('secrets.tab.secrets')}, {id: 'configs', icon: 'file', text: t('secrets.tab.configs')}]} />
    <${Table} label=${t(`secrets.tab.${tab}`)} rows=${rows} rowKey=${item => item.ID} columns=${[
      {key: 'name', title: t('secrets.name'), sort: item => item.Spec.Name, render: item => html`<strong>${item.Spec.Name}</strong>`},
      {key: 'labels', title: t('secrets.labels'), hide: 'phone', render: item => Object.entries(item.Spec.Labels || {}).map(([key, value]) => html`<${Badge}>${key}=${value}<//> `)},
      {key: 'created', title: t('secrets.created'), align: 'right', sort: item => -Date.parse(item.CreatedAt), render: item => html`<span class="soft small">${ago(item.CreatedAt)}</span>`},
    ]} actions=${item => html`${tab === 'configs' && item.Spec.Data !== undefined && html`<button class="ghost" onClick=${() => setShownConfig(item)}>${t('secrets.show')}</button>`}<button class="ghost" aria-label=${`${t('action.remove')}: ${item.Spec.Name}`} title=${t('action.remove')} onClick=${async () => {
      if (await confirm({title: t('secrets.removeTitle', {name: item.Spec.Name}), danger: true, action: t('action.remove')}) && await attempt(() => send('DELETE', `/${tab}/${item.ID}`))) reload();
    }}>${icon('remove')}</button>`} empty=${!loading && html`<${Empty} title=${t('secrets.none')}><p>${t('secrets.noneAbout')}</p><//>`} />
    ${shownConfig && html`<${Dialog} wide title=${shownConfig.Spec.Name} onClose=${() => setShownConfig(null)}><pre class="code" tabindex="0">${decode(shownConfig.Spec.Data)}</pre><//>`}`;
}

export const page = {words, View};
