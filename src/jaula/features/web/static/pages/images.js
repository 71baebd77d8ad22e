// Images: the list, the tree of layers, and what uses the space.
import {html, useEffect, useMemo, useQuery, useRef, useState, PageHead, Tabs, Table, Search, Badge, Bar, Card, Empty, ErrorBox, Menu, Id, Dialog, confirm, attempt, toast, icon} from '../ui.js';
import {download, get, lines, send} from '../api.js';
import {t} from '../i18n.js';
import {ago, bytes, number, shortId} from '../format.js';
import {Progress, pullWords} from './pull.js';
import {splitImage} from './create.js';
import {style} from '../styles.js';

await style('pages/images.css');

const words = {
  en: {
    ...pullWords.en,
    'images.title': 'Images',
    'images.about': ['{count} image, {size}', '{count} images, {size}'],
    'images.tab.list': 'List',
    'images.tab.tree': 'Layers',
    'images.tab.space': 'Space',
    'images.name': 'Name',
    'images.size': 'Size',
    'images.created': 'Created',
    'images.used': 'Containers',
    'images.untagged': 'without a name',
    'images.pull': 'Pull',
    'images.pullTitle': 'Pull an image',
    'images.pullName': 'Name, such as debian:trixie',
    'images.pulled': '{name} was pulled',
    'images.run': 'Run',
    'images.tag': 'Tag',
    'images.tagTitle': 'Give {name} another name',
    'images.newName': 'Name',
    'images.removeTitle': 'Remove {name}?',
    'images.force': 'Even if stopped containers use it',
    'images.removed': '{name} was removed',
    'images.save': 'Save as an archive',
    'images.load': 'Load',
    'images.pruneTitle': 'Remove images without a name?',
    'images.pruneAll': 'Also those that no container uses',
    'images.pruned': '{size} freed',
    'images.none': 'No images yet',
    'images.noneAbout': 'Pull one from a registry, or load an archive.',
    'images.treeAbout': 'An image below another one adds layers to it. Shared layers are stored once.',
    'images.layersOwn': ['{count} layer of its own', '{count} layers of its own'],
    'images.space.images': 'Images',
    'images.space.containers': 'Containers',
    'images.space.volumes': 'Volumes',
    'images.space.cache': 'Build cache',
    'images.reclaimable': '{size} can be freed',
    'images.biggest': 'What is biggest',
    'images.kind': 'Kind',
    'images.total': 'In all',
    'images.freeCache': 'Free the build cache',
    'images.cacheTitle': 'Remove the build cache?',
  },
  es: {
    ...pullWords.es,
    'images.title': 'Imágenes',
    'images.about': ['{count} imagen, {size}', '{count} imágenes, {size}'],
    'images.tab.list': 'Lista',
    'images.tab.tree': 'Capas',
    'images.tab.space': 'Espacio',
    'images.name': 'Nombre',
    'images.size': 'Tamaño',
    'images.created': 'Creada',
    'images.used': 'Contenedores',
    'images.untagged': 'sin nombre',
    'images.pull': 'Descargar',
    'images.pullTitle': 'Descargar una imagen',
    'images.pullName': 'Nombre, como debian:trixie',
    'images.pulled': 'Se ha descargado {name}',
    'images.run': 'Ejecutar',
    'images.tag': 'Etiquetar',
    'images.tagTitle': 'Dar otro nombre a {name}',
    'images.newName': 'Nombre',
    'images.removeTitle': '¿Eliminar {name}?',
    'images.force': 'Aunque la usen contenedores detenidos',
    'images.removed': 'Se ha eliminado {name}',
    'images.save': 'Guardar como archivo',
    'images.load': 'Cargar',
    'images.pruneTitle': '¿Eliminar las imágenes sin nombre?',
    'images.pruneAll': 'También las que no usa ningún contenedor',
    'images.pruned': '{size} liberados',
    'images.none': 'Aún no hay imágenes',
    'images.noneAbout': 'Descarga una de un registro o carga un archivo.',
    'images.treeAbout': 'Una imagen debajo de otra le añade capas. Las capas compartidas se guardan una vez.',
    'images.layersOwn': ['{count} capa propia', '{count} capas propias'],
    'images.space.images': 'Imágenes',
    'images.space.containers': 'Contenedores',
    'images.space.volumes': 'Volúmenes',
    'images.space.cache': 'Caché de construcción',
    'images.reclaimable': 'se pueden liberar {size}',
    'images.biggest': 'Lo más grande',
    'images.kind': 'Tipo',
    'images.total': 'En total',
    'images.freeCache': 'Liberar la caché de construcción',
    'images.cacheTitle': '¿Eliminar la caché de construcción?',
  },
};

const named = image => (image.RepoTags || []).filter(name => name !== '<none>:<none>');
const nameOf = image => named(image)[0] || shortId(image.Id);
const hrefOf = image => `#/images/${encodeURIComponent(image.Id)}`;

// Returns the actions on an image as items of a menu.
export function imageActions({id, names, after}) {
  const name = names[0] || shortId(id);
  const ref = encodeURIComponent(names.length === 1 ? names[0] : id);
  return [
    {text: t('images.run'), icon: 'start', run: () => {
      location.hash = `/create?image=${encodeURIComponent(names[0] || id)}`;
    }},
    {text: t('images.tag'), icon: 'tag', run: async () => {
      const values = await confirm({title: t('images.tagTitle', {name}), action: t('images.tag'), fields: [{name: 'name', label: t('images.newName')}]});
      if (!values) return;
      const [repo, tag] = splitImage(values.name.trim());
      await attempt(() => send('POST', `/images/${encodeURIComponent(id)}/tag?repo=${encodeURIComponent(repo)}&tag=${encodeURIComponent(tag)}`));
    }},
    {text: t('images.save'), icon: 'download', run: () =>
      attempt(() => download(`/api/images/${encodeURIComponent(names[0] || id)}/get`, `${name.replace(/[^\w.-]+/g, '_')}.tar`))},
    {text: t('action.remove'), icon: 'remove', danger: true, run: async () => {
      const values = await confirm({title: t('images.removeTitle', {name}), detail: names.length > 1 ? names.join('\n') : '', danger: true, action: t('action.remove'), fields: [{name: 'force', type: 'checkbox', label: t('images.force'), value: names.length > 1}]});
      if (values && await attempt(() => send('DELETE', `/images/${ref}?force=${values.force ? 1 : 0}`), t('images.removed', {name}))) after?.();
    }},
  ];
}

function PullDialog({onClose}) {
  const [progress, setProgress] = useState(null);
  const [error, setError] = useState(null);
  const abort = useRef(null);
  useEffect(() => () => abort.current?.abort(), []);
  const pull = async name => {
    const [image, tag] = splitImage(name);
    abort.current = new AbortController();
    const layers = {};
    setError(null);
    setProgress({layers, status: ''});
    try {
      for await (const message of lines('POST', `/images/create?fromImage=${encodeURIComponent(image)}${tag ? `&tag=${encodeURIComponent(tag)}` : ''}`, {signal: abort.current.signal})) {
        if (message.id) layers[message.id] = message;
        setProgress({layers: {...layers}, status: message.status});
      }
      toast(t('images.pulled', {name}));
      onClose();
    } catch (failure) {
      if (failure.name !== 'AbortError') setError(failure);
      setProgress(null);
    }
  };
  return html`<${Dialog} title=${t('images.pullTitle')} onClose=${onClose}>
    <form onSubmit=${event => {
      event.preventDefault();
      pull(event.currentTarget.elements.image.value.trim());
    }}>
      <label class="field"><span>${t('images.pullName')}</span><input name="image" required autofocus spellcheck=${false} autocomplete="off" disabled=${Boolean(progress)} /></label>
      <${ErrorBox} error=${error} />
      ${progress && html`<${Progress} ...${progress} />`}
      <footer class="buttons"><button type="button" class="ghost" onClick=${onClose}>${t('action.cancel')}</button><button class="primary" disabled=${Boolean(progress)}>${t('images.pull')}</button></footer>
    </form>
  <//>`;
}

// Returns images as a tree: an image is below the one whose layers begin its own. Pure.
export function layerTree(images) {
  const nodes = images.map(image => ({image, layers: image.layers, children: [], own: image.layers}));
  const byLength = [...nodes].sort((a, b) => a.layers.length - b.layers.length);
  const roots = [];
  byLength.forEach((node, i) => {
    let parent = null;
    for (const other of byLength.slice(0, i))
      if (other.layers.length && other.layers.length < node.layers.length && other.layers.every((layer, at) => layer === node.layers[at])) parent = other;
    if (parent) {
      parent.children.push(node);
      node.own = node.layers.slice(parent.layers.length);
    } else roots.push(node);
  });
  return roots;
}

function TreeNode({node}) {
  return html`<li><div class="tree-node"><a class="name" href=${hrefOf(node.image)}>${nameOf(node.image)}</a>
    <span class="layer-marks" role="img" aria-label=${t('images.layersOwn', {count: node.own.length})}>${node.own.slice(0, 40).map(layer => html`<i key=${layer} title=${layer}></i>`)}</span>
    <span class="small soft">${t('images.layersOwn', {count: node.own.length})}</span><span class="grow"></span><span class="small">${bytes(node.image.Size)}</span></div>
    ${node.children.length > 0 && html`<ul>${node.children.map(child => html`<${TreeNode} key=${child.image.Id} node=${child} />`)}</ul>`}</li>`;
}

function Tree({images}) {
  const [known, setKnown] = useState(null);
  const [error, setError] = useState(null);
  useEffect(() => {
    let stopped = false;
    Promise.all(images.slice(0, 300).map(image => get(`/images/${encodeURIComponent(image.Id)}/json`).then(
      found => ({...image, layers: found.RootFS?.Layers || []}),
      failure => {
        if (failure.status !== 404) throw failure;
        return null;
      },
    ))).then(all => !stopped && setKnown(all.filter(Boolean)), failure => !stopped && setError(failure));
    return () => {
      stopped = true;
    };
  }, [images]);
  if (error) return html`<${ErrorBox} error=${error} />`;
  if (!known) return html`<div class="loading"></div>`;
  return html`<${Card}><p class="soft">${t('images.treeAbout')}</p><ul class="tree">${layerTree(known).map(node => html`<${TreeNode} key=${node.image.Id} node=${node} />`)}</ul><//>`;
}

function Space() {
  const {data, error, reload} = useQuery('/system/df?verbose=1', {types: ['image', 'container', 'volume']});
  if (!data) return html`<${ErrorBox} error=${error} /><div class="loading"></div>`;
  const sections = [
    ['images', data.ImageUsage, item => named(item).join(', ') || shortId(item.Id), item => item.Size, hrefOf],
    ['containers', data.ContainerUsage, item => String(item.Names?.[0] || '').slice(1), item => item.SizeRw || 0, item => `#/containers/${item.Id}`],
    ['volumes', data.VolumeUsage, item => item.Name, item => item.UsageData?.Size || 0, () => '#/volumes'],
    ['cache', data.BuildCacheUsage, item => item.Description || item.ID, item => item.Size || 0, () => '#/images?tab=space'],
  ];
  const total = sections.reduce((sum, [, usage]) => sum + (usage?.TotalSize || 0), 0);
  const biggest = sections.flatMap(([kind, usage, name, size, href]) => (usage?.Items || []).map(item => ({kind, name: name(item), size: size(item), href: href(item)}))).sort((a, b) => b.size - a.size).slice(0, 30);
  return html`<${ErrorBox} error=${error} />
    <${Card} title=${`${t('images.total')}: ${bytes(total)}`} actions=${html`<button onClick=${async () => {
      if (await confirm({title: t('images.cacheTitle'), danger: true, action: t('action.remove')})) await attempt(async () => {
        const report = await send('POST', '/build/prune?all=1');
        toast(t('images.pruned', {size: bytes(report?.SpaceReclaimed || 0)}));
        reload();
      });
    }}>${t('images.freeCache')}</button>`}>
      <div class="space-bar" role="img" aria-label=${sections.map(([kind, usage]) => `${t(`images.space.${kind}`)} ${bytes(usage?.TotalSize || 0)}`).join(', ')}>${sections.map(([kind, usage]) => html`<i key=${kind} class=${kind} ref=${node => node && node.style.setProperty('flex-grow', String(usage?.TotalSize || 0))}></i>`)}</div>
      <div class="space-legend">${sections.map(([kind, usage]) => html`<div key=${kind}><span class="space-key ${kind}"></span><strong>${t(`images.space.${kind}`)}</strong><span>${bytes(usage?.TotalSize || 0)}</span><span class="small soft">${number(usage?.TotalCount || 0)} · ${t('images.reclaimable', {size: bytes(usage?.Reclaimable || 0)})}</span></div>`)}</div>
    <//>
    <h2 class="section">${t('images.biggest')}</h2>
    <${Table} label=${t('images.biggest')} rows=${biggest} rowKey=${row => `${row.kind} ${row.name}`} columns=${[
      {key: 'name', title: t('images.name'), sort: row => row.name, render: row => html`<a class="name" href=${row.href}>${row.name}</a>`},
      {key: 'kind', title: t('images.kind'), sort: row => row.kind, hide: 'phone', render: row => html`<span class="space-key ${row.kind}"></span> ${t(`images.space.${row.kind}`)}`},
      {key: 'size', title: t('images.size'), align: 'right', sort: row => row.size, render: row => bytes(row.size)},
      {key: 'bar', title: '', hide: 'phone', render: row => html`<${Bar} value=${row.size} limit=${biggest[0].size} label=${bytes(row.size)} />`},
    ]} />`;
}

function View({query}) {
  const tab = ['tree', 'space'].includes(query.get('tab')) ? query.get('tab') : 'list';
  const {data, error, loading, reload} = useQuery('/images/json', {types: ['image', 'container']});
  const [text, setText] = useState('');
  const [pulling, setPulling] = useState(false);
  const file = useRef();
  const images = useMemo(() => data || [], [data]);
  const needle = text.toLowerCase();
  const shown = images.filter(image => [image.Id, ...(image.RepoTags || [])].some(value => value.toLowerCase().includes(needle)));
  const columns = [
    {key: 'name', title: t('images.name'), sort: nameOf, render: image => html`<a class="name" href=${hrefOf(image)}>${named(image)[0] || html`<span class="faint">${t('images.untagged')}</span>`}</a> ${named(image).slice(1, 6).map(name => html`<${Badge}>${name}<//> `)}<br /><${Id} value=${image.Id} />`},
    {key: 'used', title: t('images.used'), align: 'right', hide: 'phone', sort: image => image.Containers, render: image => (image.Containers > 0 ? number(image.Containers) : html`<span class="faint">–</span>`)},
    {key: 'created', title: t('images.created'), align: 'right', hide: 'phone', sort: image => -image.Created, render: image => html`<span class="soft small">${ago(image.Created)}</span>`},
    {key: 'size', title: t('images.size'), align: 'right', sort: image => image.Size, render: image => bytes(image.Size)},
  ];
  return html`<${PageHead} title=${t('images.title')} about=${data && t('images.about', {count: images.length, size: bytes(images.reduce((sum, image) => sum + image.Size, 0))})}>
      ${tab === 'list' && html`<${Search} value=${text} onInput=${setText} />`}
      <input ref=${file} type="file" accept=".tar,.gz,.tgz,.zst,.xz" class="hidden" tabindex="-1" aria-hidden="true" onChange=${async event => {
        const archive = event.currentTarget.files[0];
        if (archive) await attempt(async () => {
          for await (const message of lines('POST', '/images/load?quiet=1', {body: archive, headers: {'Content-Type': 'application/x-tar'}})) if (message.stream) toast(message.stream.trim());
          reload();
        });
        event.currentTarget.value = '';
      }} />
      <button onClick=${() => file.current.click()}>${icon('upload', 16)} ${t('images.load')}</button>
      <button class="primary" onClick=${() => setPulling(true)}>${icon('download', 16)} ${t('images.pull')}</button>
      <${Menu} label=${t('action.actions')} items=${[{text: t('action.prune'), icon: 'remove', danger: true, run: async () => {
        const values = await confirm({title: t('images.pruneTitle'), danger: true, action: t('action.prune'), fields: [{name: 'all', type: 'checkbox', label: t('images.pruneAll'), value: false}]});
        if (values) await attempt(async () => {
          const filters = encodeURIComponent(JSON.stringify({dangling: [values.all ? 'false' : 'true']}));
          const report = await send('POST', `/images/prune?filters=${filters}`);
          toast(t('images.pruned', {size: bytes(report.SpaceReclaimed || 0)}));
        });
      }}]} />
    <//>
    <${ErrorBox} error=${error} />
    <${Tabs} label=${t('images.title')} current=${tab} href=${id => `#/images${id === 'list' ? '' : `?tab=${id}`}`} items=${[['list', 'images'], ['tree', 'processes'], ['space', 'stats']].map(([id, symbol]) => ({id, icon: symbol, text: t(`images.tab.${id}`)}))} />
    ${tab === 'list' && html`<${Table} label=${t('images.title')} columns=${columns} rows=${shown} rowKey=${image => image.Id} href=${hrefOf} actions=${image => html`<${Menu} label=${`${t('action.actions')}: ${nameOf(image)}`} items=${imageActions({id: image.Id, names: named(image)})} />`}
      empty=${!loading && html`<${Empty} title=${t('images.none')}><p>${t('images.noneAbout')}</p><//>`} />`}
    ${tab === 'tree' && html`<${Tree} images=${images} />`}
    ${tab === 'space' && html`<${Space} />`}
    ${pulling && html`<${PullDialog} onClose=${() => setPulling(false)} />`}`;
}

export const imageWords = words;
export const page = {words, View};
