// Create and run a container: a form, and the command line that does the same.
import {html, useEffect, useMemo, useQuery, useRef, useState, PageHead, Card, ErrorBox, Badge, Copy, toast, icon} from '../ui.js';
import {lines, send} from '../api.js';
import {t} from '../i18n.js';
import {go} from '../router.js';
import {shellWord, splitWords} from '../words.js';
import {FLAGS, GROUPS, commandWords, createBody, isSet, parseCommand} from '../run_flags.js';
import {style} from '../styles.js';
import {Progress, pullWords} from './pull.js';

await style('pages/create.css');

const words = {
  en: {
    ...pullWords.en,
    'create.title': 'Create and run',
    'create.about': 'Isolated by default. What relaxes it is marked.',
    'create.image': 'Image',
    'create.command': 'Command',
    'create.commandHint': 'as the image says',
    'create.line': 'Command line',
    'create.lineAbout': 'The same request. It can be edited here, too.',
    'create.run': 'Create and start',
    'create.only': 'Create only',
    'create.working': 'Working…',
    'create.pulling': 'Pulling {image}',
    'create.done': '{name} was created',
    'create.relaxes': 'relaxes',
    'create.set': ['{count} set', '{count} set'],
    'create.addValue': 'Add a value for {name}',
    'create.removeValue': 'Remove this value',
    'create.group.general': 'General',
    'create.group.process': 'Process',
    'create.group.network': 'Network',
    'create.group.storage': 'Files and storage',
    'create.group.limits': 'Limits',
    'create.group.isolation': 'Isolation',
    'create.group.health': 'Health check',
    'create.group.metadata': 'Labels and logs',
    'create.default': 'default',
    'create.find': 'Find a flag',
  },
  es: {
    ...pullWords.es,
    'create.title': 'Crear y ejecutar',
    'create.about': 'Aislado por defecto. Lo que lo relaja está marcado.',
    'create.image': 'Imagen',
    'create.command': 'Orden',
    'create.commandHint': 'la de la imagen',
    'create.line': 'Línea de órdenes',
    'create.lineAbout': 'La misma petición. También se puede editar aquí.',
    'create.run': 'Crear e iniciar',
    'create.only': 'Solo crear',
    'create.working': 'Trabajando…',
    'create.pulling': 'Descargando {image}',
    'create.done': 'Se ha creado {name}',
    'create.relaxes': 'relaja',
    'create.set': ['{count} puesta', '{count} puestas'],
    'create.addValue': 'Añadir un valor a {name}',
    'create.removeValue': 'Quitar este valor',
    'create.group.general': 'General',
    'create.group.process': 'Proceso',
    'create.group.network': 'Red',
    'create.group.storage': 'Archivos y almacenamiento',
    'create.group.limits': 'Límites',
    'create.group.isolation': 'Aislamiento',
    'create.group.health': 'Prueba de salud',
    'create.group.metadata': 'Etiquetas y registros',
    'create.default': 'por defecto',
    'create.find': 'Buscar una opción',
  },
};

function ListField({flag, value, onChange}) {
  const list = value?.length ? value : [''];
  const set = (i, text) => onChange(list.map((old, at) => (at === i ? text : old)));
  return html`<div class="flag-list">${list.map((text, i) => html`<span key=${i}>
      <input value=${text} placeholder=${flag.hint} aria-label=${`--${flag.name} ${i + 1}`} onInput=${event => set(i, event.currentTarget.value)} spellcheck=${false} autocomplete="off" />
      ${list.length > 1 && html`<button type="button" class="ghost small" aria-label=${t('create.removeValue')} onClick=${() => onChange(list.filter((_, at) => at !== i))}>${icon('close', 13)}</button>`}
    </span>`)}
    ${list[list.length - 1] && html`<button type="button" class="ghost small" aria-label=${t('create.addValue', {name: flag.name})} onClick=${() => onChange([...list, ''])}>${icon('add', 14)}</button>`}
  </div>`;
}

function FlagField({flag, value, onChange}) {
  const mark = flag.relaxes && html` <${Badge} kind="relaxed">${t('create.relaxes')}<//>`;
  if (flag.kind === 'bool') return html`<label class="check flag"><input type="checkbox" checked=${Boolean(value)} onChange=${event => onChange(event.currentTarget.checked)} /> <code>--${flag.name}</code>${mark}</label>`;
  if (flag.kind === 'list') return html`<div class="field flag" role="group" aria-label=${`--${flag.name}`}><span><code>--${flag.name}</code>${mark}</span><${ListField} flag=${flag} value=${value} onChange=${onChange} /></div>`;
  if (flag.kind === 'choice' && !(flag.open && value && !flag.choices.includes(value))) return html`<label class="field flag"><span><code>--${flag.name}</code>${mark}</span><select value=${value || ''} onChange=${event => onChange(event.currentTarget.value)}><option value="">${t('create.default')}</option>${flag.choices.map(choice => html`<option value=${choice}>${choice}</option>`)}</select></label>`;
  return html`<label class="field flag"><span><code>--${flag.name}</code>${mark}</span><input value=${value || ''} placeholder=${flag.hint} onInput=${event => onChange(event.currentTarget.value)} spellcheck=${false} autocomplete="off" /></label>`;
}

function View({query}) {
  const [request, setRequest] = useState({image: query.get('image') || '', command: [], flags: {}});
  const [commandText, setCommandText] = useState('');
  const [line, setLine] = useState(null); // text that is being edited; null: made of the request
  const [problem, setProblem] = useState(null);
  const [error, setError] = useState(null);
  const [progress, setProgress] = useState(null);
  const [find, setFind] = useState('');
  const images = useQuery('/images/json', {types: ['image']});
  const networks = useQuery('/networks', {types: ['network']});
  const names = useMemo(() => (images.data || []).flatMap(image => image.RepoTags || []).filter(name => name !== '<none>:<none>').sort(), [images.data]);
  const abort = useRef(null);
  useEffect(() => () => abort.current?.abort(), []);

  const change = next => {
    setLine(null);
    setProblem(null);
    setRequest(next);
  };
  const setFlag = (name, value) => change({...request, flags: {...request.flags, [name]: value}});
  const shown = line ?? commandWords(request).map(shellWord).join(' ');
  const editLine = text => {
    setLine(text);
    try {
      const parsed = parseCommand(splitWords(text));
      setRequest(parsed);
      setCommandText(parsed.command.map(shellWord).join(' '));
      setProblem(null);
    } catch (failure) {
      setProblem(failure);
    }
  };

  const pull = async () => {
    abort.current = new AbortController();
    const [image, tag] = splitImage(request.image);
    const platform = request.flags.platform ? `&platform=${encodeURIComponent(request.flags.platform)}` : '';
    const layers = {};
    for await (const message of lines('POST', `/images/create?fromImage=${encodeURIComponent(image)}${tag ? `&tag=${encodeURIComponent(tag)}` : ''}${platform}`, {signal: abort.current.signal})) {
      if (message.id) layers[message.id] = message;
      setProgress({layers: {...layers}, status: message.status});
    }
    setProgress(null);
  };

  const run = async start => {
    setError(null);
    setProgress({layers: {}, status: ''});
    try {
      const body = createBody(request);
      const parameters = new URLSearchParams();
      if (request.flags.name) parameters.set('name', request.flags.name);
      if (request.flags.platform) parameters.set('platform', request.flags.platform);
      const create = () => send('POST', `/containers/create?${parameters}`, body);
      if (request.flags.pull === 'always') await pull();
      let created;
      try {
        created = await create();
      } catch (failure) {
        if (failure.status !== 404 || request.flags.pull === 'never' || !/no such image/i.test(failure.message)) throw failure;
        await pull();
        created = await create();
      }
      for (const warning of created.Warnings || []) toast(warning);
      if (start) await send('POST', `/containers/${created.Id}/start`);
      toast(t('create.done', {name: request.flags.name || created.Id.slice(0, 12)}));
      go(`/containers/${created.Id}`);
    } catch (failure) {
      if (failure.name !== 'AbortError') setError(failure);
    }
    setProgress(null);
  };

  const groups = GROUPS.map(group => ({group, flags: FLAGS.filter(flag => flag.group === group && flag.name.includes(find.toLowerCase().replace(/^-+/, '')))})).filter(({flags}) => flags.length);
  return html`<${PageHead} title=${t('create.title')} about=${t('create.about')} />
    <form class="create" onSubmit=${event => {
      event.preventDefault();
      run(true);
    }}>
      <div class="create-form">
        <div class="create-first">
          <label class="field"><span>${t('create.image')}</span><input required list="image-names" value=${request.image} placeholder="debian:trixie" onInput=${event => change({...request, image: event.currentTarget.value.trim()})} spellcheck=${false} autocomplete="off" autofocus /></label>
          <datalist id="image-names">${names.map(name => html`<option value=${name} />`)}</datalist>
          <datalist id="network-names">${(networks.data || []).map(network => html`<option value=${network.Name} />`)}</datalist>
          <label class="field"><span>${t('create.command')}</span><input value=${commandText} placeholder=${t('create.commandHint')} onInput=${event => {
            setCommandText(event.currentTarget.value);
            change({...request, command: splitWords(event.currentTarget.value)});
          }} spellcheck=${false} autocomplete="off" /></label>
        </div>
        <label class="search">${icon('search', 16)}<span class="hidden">${t('create.find')}</span><input type="search" data-search placeholder=${t('create.find')} value=${find} onInput=${event => setFind(event.currentTarget.value)} /></label>
        ${groups.map(({group, flags}) => {
          const count = flags.filter(flag => isSet(request.flags[flag.name])).length;
          return html`<details class="card" key=${group} open=${group === 'general' || count > 0 || Boolean(find)}><summary><h2>${t(`create.group.${group}`)}</h2>${count > 0 && html`<${Badge} kind="holds">${t('create.set', {count})}<//>`}</summary>
            <div class="flags">${flags.map(flag => html`<${FlagField} key=${flag.name} flag=${flag} value=${request.flags[flag.name]} onChange=${value => setFlag(flag.name, value)} />`)}</div></details>`;
        })}
      </div>
      <aside class="create-side">
        <${Card} title=${t('create.line')} actions=${html`<${Copy} text=${shown} />`}>
          <textarea class="line" aria-label=${t('create.line')} rows="7" value=${shown} onInput=${event => editLine(event.currentTarget.value)} onBlur=${() => !problem && setLine(null)} spellcheck=${false}></textarea>
          ${problem ? html`<p class="danger-text small" role="alert">${problem.message}</p>` : html`<p class="small faint">${t('create.lineAbout')}</p>`}
        <//>
        <${ErrorBox} error=${error} />
        <div class="create-buttons">
          <button class="primary" disabled=${Boolean(progress) || Boolean(problem)}>${icon('start', 16)} ${progress ? t('create.working') : t('create.run')}</button>
          <button type="button" disabled=${Boolean(progress) || Boolean(problem) || !request.image} onClick=${() => run(false)}>${t('create.only')}</button>
        </div>
        ${progress && Object.keys(progress.layers).length > 0 && html`<${Card} title=${t('create.pulling', {image: request.image})}><${Progress} layers=${progress.layers} status=${progress.status} /><//>`}
      </aside>
    </form>`;
}

// Splits NAME[:TAG][@DIGEST] as the API takes it. Pure.
export function splitImage(name) {
  if (name.includes('@')) return [name, ''];
  const slash = name.lastIndexOf('/');
  const colon = name.indexOf(':', slash + 1);
  return colon < 0 ? [name, 'latest'] : [name.slice(0, colon), name.slice(colon + 1)];
}

export const page = {words, View};
