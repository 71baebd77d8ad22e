// One image: its names, configuration and layers.
import {html, useQuery, PageHead, Card, Facts, Badge, Bar, Copy, ErrorBox, Id, Menu, icon} from '../ui.js';
import {t} from '../i18n.js';
import {ago, bytes, containerName, date, shortId} from '../format.js';
import {go} from '../router.js';
import {style} from '../styles.js';
import {imageActions, imageWords} from './images.js';

await style('pages/images.css');

const words = {
  en: {
    ...imageWords.en,
    'image.gone': 'The image does not exist any more',
    'image.names': 'Names',
    'image.digests': 'Digests',
    'image.platform': 'Platform',
    'image.command': 'Command',
    'image.entrypoint': 'Entry point',
    'image.user': 'User',
    'image.directory': 'Directory',
    'image.ports': 'Ports',
    'image.volumes': 'Volumes',
    'image.environment': 'Environment',
    'image.labels': 'Labels',
    'image.config': 'Configuration',
    'image.identity': 'Identity',
    'image.history': 'Layers, the newest first',
    'image.usedBy': 'Containers of this image',
    'image.none': 'none',
    'image.root': 'root',
  },
  es: {
    ...imageWords.es,
    'image.gone': 'La imagen ya no existe',
    'image.names': 'Nombres',
    'image.digests': 'Resúmenes',
    'image.platform': 'Plataforma',
    'image.command': 'Orden',
    'image.entrypoint': 'Punto de entrada',
    'image.user': 'Usuario',
    'image.directory': 'Directorio',
    'image.ports': 'Puertos',
    'image.volumes': 'Volúmenes',
    'image.environment': 'Entorno',
    'image.labels': 'Etiquetas',
    'image.config': 'Configuración',
    'image.identity': 'Identidad',
    'image.history': 'Capas, la más nueva primero',
    'image.usedBy': 'Contenedores de esta imagen',
    'image.none': 'ninguno',
    'image.root': 'root',
  },
};

function View({name}) {
  const ref = encodeURIComponent(name);
  const image = useQuery(`/images/${ref}/json`, {types: ['image']});
  const history = useQuery(`/images/${ref}/history`);
  const id = image.data?.Id || '';
  const users = useQuery(id ? `/containers/json?all=1&filters=${encodeURIComponent(JSON.stringify({ancestor: [id]}))}` : null, {types: ['container']});
  const back = {href: '#/images', text: t('images.title')};
  if (image.error?.status === 404) return html`<${PageHead} title=${t('image.gone')} back=${back} />`;
  if (!image.data) return html`<${PageHead} title=${shortId(name)} back=${back} /><${ErrorBox} error=${image.error} />`;
  const data = image.data;
  const config = data.Config || {};
  const names = (data.RepoTags || []).filter(tag => tag !== '<none>:<none>');
  const layers = history.data || [];
  const largest = Math.max(1, ...layers.map(layer => layer.Size));
  return html`<${PageHead} title=${names[0] || shortId(data.Id)} back=${back} about=${html`<span class="row"><span>${bytes(data.Size)}</span><span title=${date(data.Created)}>${ago(data.Created)}</span><${Id} value=${data.Id} /><${Copy} text=${data.Id} /></span>`}>
      <a class="button primary" href=${`#/create?image=${encodeURIComponent(names[0] || data.Id)}`}>${icon('start', 16)} ${t('images.run')}</a>
      <${Menu} label=${t('action.actions')} items=${imageActions({id: data.Id, names, after: () => go('/images')}).slice(1)} />
    <//>
    <div class="cards">
      <${Card} title=${t('image.identity')}><${Facts} rows=${[
        [t('image.names'), names.map(value => html`<${Badge}>${value}<//> `)],
        [t('image.digests'), (data.RepoDigests || []).map(value => html`<code>${value}</code> `)],
        [t('image.platform'), `${data.Os}/${data.Architecture}${data.Variant ? `/${data.Variant}` : ''}`],
      ]} />
        <h3 class="section">${t('image.usedBy')}</h3>${users.data?.length ? users.data.map(container => html`<a href=${`#/containers/${container.Id}`}>${containerName(container)}</a> `) : html`<span class="faint">${t('image.none')}</span>`}<//>
      <${Card} title=${t('image.config')}><${Facts} rows=${[
        [t('image.entrypoint'), config.Entrypoint && html`<code>${config.Entrypoint.join(' ')}</code>`],
        [t('image.command'), config.Cmd && html`<code>${config.Cmd.join(' ')}</code>`],
        [t('image.user'), config.User || t('image.root')],
        [t('image.directory'), config.WorkingDir],
        [t('image.ports'), Object.keys(config.ExposedPorts || {}).join(' ')],
        [t('image.volumes'), Object.keys(config.Volumes || {}).join(' ')],
        [t('image.environment'), (config.Env || []).length > 0 && html`<pre>${config.Env.join('\n')}</pre>`],
        [t('image.labels'), Object.keys(config.Labels || {}).length > 0 && html`<pre>${Object.entries(config.Labels).map(([key, value]) => `${key}=${value}`).join('\n')}</pre>`],
      ]} /><//>
    </div>
    <h2 class="section">${t('image.history')}</h2>
    <${ErrorBox} error=${history.error} />
    <ol class="layers">${layers.map((layer, i) => html`<li key=${i} class="layer-row ${layer.Size ? '' : 'empty-layer'}"><code title=${layer.CreatedBy}>${layer.CreatedBy || layer.Comment || '–'}</code><${Bar} value=${layer.Size} limit=${largest} label=${bytes(layer.Size)} /><span class="right small">${bytes(layer.Size)}</span></li>`)}</ol>`;
}

export const page = {words, View};
