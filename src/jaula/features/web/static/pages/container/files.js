// The files of a container: list, show, download, upload. All through the engine's archive API.
import {html, useEffect, useQuery, useRef, useState, Table, ErrorBox, Empty, Dialog, Badge, attempt, icon} from '../../ui.js';
import {beginning, download, send} from '../../api.js';
import {t} from '../../i18n.js';
import {setQuery} from '../../router.js';
import {ago, bytes, date} from '../../format.js';
import {archive} from './tar.js';

const DIRECTORY = 2 ** 31; // bits of Go's fs.FileMode
const LINK = 2 ** 27;
const MAX_SHOWN = 256 * 1024; // bytes of a file that is shown

const has = (mode, bit) => Math.floor(mode / bit) % 2 === 1;
const isSpecial = mode => has(mode, 2 ** 26) || has(mode, 2 ** 25) || has(mode, 2 ** 24);

export function permissions(mode) {
  const kind = has(mode, DIRECTORY) ? 'd' : has(mode, LINK) ? 'l' : isSpecial(mode) ? 's' : '-';
  let text = '';
  for (let i = 8; i >= 0; i--) text += has(mode, 2 ** i) ? 'rwx'[(8 - i) % 3] : '-';
  return kind + text;
}

const join = (directory, name) => `${directory.replace(/\/$/, '')}/${name}`;

function FileText({id, path, onClose}) {
  const [text, setText] = useState(null);
  const [error, setError] = useState(null);
  useEffect(() => {
    const abort = new AbortController();
    beginning(`/files/${encodeURIComponent(id)}?path=${encodeURIComponent(path)}`, MAX_SHOWN, abort.signal).then(
      // eslint-disable-next-line no-control-regex
      content => setText(/\x00/.test(content.slice(0, 4096)) ? '' : content),
      failure => failure.name !== 'AbortError' && setError(failure),
    );
    return () => abort.abort();
  }, [id, path]);
  return html`<${Dialog} wide title=${path} onClose=${onClose}>
    <${ErrorBox} error=${error} />
    ${text === '' && html`<p class="faint">${t('files.binary')}</p>`}
    ${text && html`<pre class="code file-text" tabindex="0">${text}</pre>`}
    ${text === null && !error && html`<div class="loading"></div>`}
  <//>`;
}

export function Files({id, path}) {
  const container = encodeURIComponent(id);
  const {data, error, loading, reload} = useQuery(`/jaula/containers/${container}/files?path=${encodeURIComponent(path)}`);
  const [shown, setShown] = useState('');
  const [over, setOver] = useState(false);
  const input = useRef();
  const parts = path.split('/').filter(Boolean);
  const open = directory => setQuery({path: directory});
  const isArchive = row => has(row.Mode, DIRECTORY) || has(row.Mode, LINK);
  const address = row => href(row.Name, isArchive(row));
  const href = (name, tar) => `/files/${container}?path=${encodeURIComponent(join(path, name))}${tar ? '&tar=1' : ''}`;

  const upload = async list => {
    const files = [...list];
    if (!files.length) return;
    if (await attempt(
      () => send('PUT', `/containers/${container}/archive?path=${encodeURIComponent(path)}`, archive(files), {headers: {'Content-Type': 'application/x-tar'}}),
      t('files.uploaded', {count: files.length}),
    )) reload();
  };

  const save = (href_, name) => () => attempt(() => download(href_, name));

  const columns = [
    {key: 'name', title: t('files.name'), sort: row => `${has(row.Mode, DIRECTORY) ? 0 : 1}${row.Name}`, render: row => {
      const symbol = icon(has(row.Mode, DIRECTORY) ? 'files' : 'file', 16);
      const target = row.LinkTarget && html` <span class="faint small">→ ${row.LinkTarget}</span>`;
      if (row.Text === false) return html`<span class="row-name">${symbol} ${row.Name} <${Badge} kind="relaxed">${t('files.notUtf8')}<//></span>`;
      if (has(row.Mode, DIRECTORY) || has(row.Mode, LINK)) return html`<span class="row-name">${symbol} <button class="link" onClick=${() => open(row.LinkTarget?.startsWith('/') ? row.LinkTarget : join(path, row.LinkTarget || row.Name))}>${row.Name}</button>${target}</span>`;
      if (isSpecial(row.Mode)) return html`<span class="row-name">${symbol} ${row.Name}</span>`;
      return html`<span class="row-name">${symbol} <button class="link" onClick=${() => setShown(join(path, row.Name))}>${row.Name}</button></span>`;
    }},
    {key: 'size', title: t('files.size'), align: 'right', sort: row => row.Size, render: row => (has(row.Mode, DIRECTORY) ? '' : bytes(row.Size))},
    {key: 'mode', title: t('files.mode'), hide: 'phone', render: row => html`<code class="soft">${permissions(row.Mode)}</code>`},
    {key: 'owner', title: t('files.owner'), hide: 'phone', sort: row => row.Uid, render: row => html`<code class="soft">${row.Uid}:${row.Gid}</code>`},
    {key: 'time', title: t('files.changed'), hide: 'phone', align: 'right', sort: row => Date.parse(row.Mtime), render: row => html`<span class="soft small" title=${date(row.Mtime)}>${ago(row.Mtime)}</span>`},
  ];

  return html`<div class="files ${over ? 'over' : ''}" onDragOver=${event => {
    event.preventDefault();
    setOver(true);
  }} onDragLeave=${() => setOver(false)} onDrop=${event => {
    event.preventDefault();
    setOver(false);
    upload(event.dataTransfer.files);
  }}>
    <div class="toolbar">
      <nav class="crumbs" aria-label=${t('files.path')}><button class="link" onClick=${() => open('/')}>/</button>${parts.map((part, i) => html`<button class="link" onClick=${() => open(`/${parts.slice(0, i + 1).join('/')}`)}>${part}</button><span class="faint">/</span>`)}</nav>
      <span class="grow"></span>
      <input ref=${input} type="file" multiple class="hidden" tabindex="-1" aria-hidden="true" onChange=${event => upload(event.currentTarget.files)} />
      <button onClick=${() => input.current.click()}>${icon('upload', 16)} ${t('files.upload')}</button>
      <button class="ghost" onClick=${save(href('', true), `${parts.at(-1) || 'root'}.tar`)}>${icon('download', 16)} ${t('files.downloadAll')}</button>
    </div>
    <${ErrorBox} error=${error} />
    <${Table} label=${path} columns=${columns} rows=${data?.Entries || []} rowKey=${row => row.Name} empty=${!loading && !error && html`<${Empty} title=${t('files.empty')} mark=${false} />`}
      actions=${row => row.Text !== false && !isSpecial(row.Mode) && html`<button class="ghost" onClick=${save(address(row), `${row.Name}${isArchive(row) ? '.tar' : ''}`)} title=${t('files.download', {name: row.Name})} aria-label=${t('files.download', {name: row.Name})}>${icon('download', 16)}</button>`} />
    ${data?.Truncated && html`<p class="faint">${t('files.truncated')}</p>`}
    ${shown && html`<${FileText} id=${id} path=${shown} onClose=${() => setShown('')} />`}
  </div>`;
}

Files.words = {
  en: {
    'files.name': 'Name',
    'files.size': 'Size',
    'files.mode': 'Mode',
    'files.owner': 'Owner',
    'files.changed': 'Changed',
    'files.path': 'Path',
    'files.upload': 'Upload',
    'files.uploaded': ['{count} file uploaded', '{count} files uploaded'],
    'files.download': 'Download {name}',
    'files.downloadAll': 'Download as tar',
    'files.empty': 'The directory is empty',
    'files.binary': 'The file is not text. Download it to see it.',
    'files.notUtf8': 'not UTF-8',
    'files.truncated': 'The directory has more files than are shown.',
  },
  es: {
    'files.name': 'Nombre',
    'files.size': 'Tamaño',
    'files.mode': 'Modo',
    'files.owner': 'Propietario',
    'files.changed': 'Cambiado',
    'files.path': 'Ruta',
    'files.upload': 'Subir',
    'files.uploaded': ['{count} archivo subido', '{count} archivos subidos'],
    'files.download': 'Descargar {name}',
    'files.downloadAll': 'Descargar como tar',
    'files.empty': 'El directorio está vacío',
    'files.binary': 'El archivo no es texto. Descárgalo para verlo.',
    'files.notUtf8': 'no es UTF-8',
    'files.truncated': 'El directorio tiene más archivos de los que se muestran.',
  },
};
