// Usage of containers over time: all of them as a table with small curves, one of them in charts.

import { html, ErrorBox, PageHead, Empty, useEffect, useRef, useState } from '../ui.js';
import { get } from '../api.js';
import { language, t } from '../i18n.js';
import { style } from '../styles.js';
import { bytes, containerName } from '../format.js';
import { F, observed } from '../observed.js';
import words from '../i18n/map.js';

await Promise.all([style('pages/map.css'), style('vendor/uplot.css')]);

const WINDOW = 600; // seconds of a chart
const POINTS = 600;
const CURVE = 60; // samples of a small curve

const percent = (value) => (value === null || value === undefined ? '' : `${value < 10 ? value.toFixed(1) : Math.round(value)}%`);
const rate = (value) => `${bytes(value)}/s`;

/** Charts of one container: fields, how values are written, and whether a limit is drawn. */
const CHARTS = [
  { key: 'memory', fields: ['memory', 'limit'], names: ['stats.usage', 'stats.limit'], text: bytes, marks: true },
  { key: 'cpu', fields: ['cpu', 'throttled'], names: ['stats.cpu', 'stats.throttled'], text: percent },
  { key: 'pids', fields: ['pids'], names: ['stats.pids'], text: (value) => String(Math.round(value)) },
  { key: 'network', fields: ['received', 'sent'], names: ['stats.received', 'stats.sent'], text: rate },
  { key: 'block', fields: ['read', 'written'], names: ['stats.readb', 'stats.written'], text: rate },
  { key: 'pressure', fields: ['pressure_cpu', 'pressure_memory', 'pressure_io'], names: ['stats.cpu', 'stats.memory', 'stats.block'], text: percent },
];

/** Return the times at which the number of OOM kills rises, with the number of kills. Pure. */
export function oomMarks(rows) {
  const marks = [];
  rows.forEach(([time, values], index) => {
    const before = index ? rows[index - 1][1][F.oom] : values[F.oom];
    if (values[F.oom] > before) marks.push({ time, kills: values[F.oom] - before });
  });
  return marks;
}

/** Return the columns of uPlot for some fields; values that are not counted are gaps. Pure. */
export function columns(rows, fields) {
  return [
    rows.map(([time]) => time),
    ...fields.map((field) => rows.map(([, values]) => {
      const value = values[F[field]];
      return value < 0 || (field.endsWith('limit') && value === 0) ? null : value;
    })),
  ];
}

/** Return the time of the day for an axis, with seconds unless they are 0. */
function clock(time) {
  const date = new Date(time * 1000);
  const second = date.getSeconds() ? { second: '2-digit' } : {};
  return date.toLocaleTimeString(language(), { hour: '2-digit', minute: '2-digit', ...second });
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

let loadingPlot = null;
const plot = () => (loadingPlot ??= import('../vendor/uplot.js').then((module) => module.default));

/** The marks of OOM kills, drawn over a chart. */
const oomPlugin = (marks) => ({
  hooks: {
    draw: (chart) => {
      const { ctx, bbox } = chart;
      ctx.save();
      ctx.fillStyle = ctx.strokeStyle = colour('--fails') || 'red';
      ctx.lineWidth = 1.5 * devicePixelRatio;
      ctx.font = `${11 * devicePixelRatio}px system-ui`;
      for (const { time } of marks()) {
        const x = chart.valToPos(time, 'x', true);
        if (x < bbox.left || x > bbox.left + bbox.width) continue;
        ctx.beginPath();
        ctx.moveTo(x, bbox.top);
        ctx.lineTo(x, bbox.top + bbox.height);
        ctx.stroke();
        ctx.beginPath();
        ctx.moveTo(x - 5 * devicePixelRatio, bbox.top);
        ctx.lineTo(x + 5 * devicePixelRatio, bbox.top);
        ctx.lineTo(x, bbox.top + 8 * devicePixelRatio);
        ctx.fill();
        ctx.fillText('OOM', x + 7 * devicePixelRatio, bbox.top + 10 * devicePixelRatio);
      }
      ctx.restore();
    },
  },
});

function Chart({ chart, rows, marks }) {
  const root = useRef(null);
  const drawn = useRef(null);
  const latest = useRef({ rows, marks });
  latest.current = { rows, marks };
  const data = columns(rows, chart.fields);
  const empty = !rows.length || data.slice(1).every((column) => column.every((value) => value === null));
  useEffect(() => {
    if (empty) return undefined;
    let ended = false;
    let observer = null;
    const build = async () => {
      const UPlot = await plot();
      if (ended || !root.current) return;
      drawn.current?.destroy();
      const soft = colour('--text-soft') || colour('--soft') || '#888';
      const grid = { stroke: colour('--line') || '#8883', width: 1 };
      const axis = { stroke: soft, grid, ticks: grid, font: '11px system-ui' };
      const lines = [colour('--accent') || '#2a7', chart.fields[1]?.endsWith('limit') ? colour('--relaxed') : colour('--chart-2') || '#79a', colour('--chart-3') || '#a7c'];
      drawn.current = new UPlot({
        width: root.current.clientWidth, height: 190, legend: { show: false }, cursor: { y: false, points: { size: 6 } }, padding: [12, 8, 0, 0],
        scales: { x: { range: (_, least, most) => [Math.min(least, most - 30), most] }, y: { range: (_, least, most) => [0, Math.max(most * 1.08, chart.text === percent ? 1 : 4)] } },
        axes: [{ ...axis, space: 70, values: (_, all) => all.map(clock) }, { ...axis, size: 70, values: (_, all) => all.map((value) => chart.text(value)) }],
        series: [{}, ...chart.fields.map((field, index) => ({
          stroke: lines[index], width: 1.6, spanGaps: false, points: { show: false },
          ...(field.endsWith('limit') ? { dash: [5, 4] } : index ? {} : { fill: `${lines[0]}1f` }),
        }))],
        plugins: chart.marks ? [oomPlugin(() => latest.current.marks)] : [],
      }, columns(latest.current.rows, chart.fields), root.current);
      root.current.firstChild?.setAttribute('aria-hidden', 'true');
    };
    build();
    observer = new ResizeObserver(() => drawn.current?.setSize({ width: root.current.clientWidth, height: 190 }));
    observer.observe(root.current);
    addEventListener('theme', build);
    return () => { ended = true; observer.disconnect(); removeEventListener('theme', build); drawn.current?.destroy(); drawn.current = null; };
  }, [empty]);
  useEffect(() => { drawn.current?.setData(data); }, [rows.at(-1)?.[0], rows.length]);
  const last = rows.at(-1)?.[1];
  const figures = chart.fields.map((field, index) => {
    const value = last?.[F[field]];
    if (value === undefined || value < 0 || (field.endsWith('limit') && !value)) return null;
    return html`<span class="figure series-${index}${field.endsWith('limit') ? ' limit' : ''}"><i aria-hidden="true"></i>${t(chart.names[index])} <b>${chart.text(value)}</b></span>`;
  });
  return html`<section class="card chart" data-chart=${chart.key}><header><h2>${t(`stats.${chart.key}`)}</h2><p class="chart-figures">${figures}
      ${chart.marks && marks.length ? html`<span class="word fails oom">${t('stats.ooms', { count: marks.reduce((sum, each) => sum + each.kills, 0) })}</span>` : null}</p></header>
    <div class="plot" ref=${root}></div>
    ${empty && chart.key === 'pressure' && last ? html`<p class="soft">${t('stats.nopressure')}</p>` : null}</section>`;
}

/** The newest values as a table, for readers that see no chart. */
function Values({ rows, marks }) {
  const shown = rows.filter((_, index) => (rows.length - 1 - index) % 30 === 0).slice(-20).reverse();
  const fields = ['cpu', 'throttled', 'memory', 'limit', 'pids', 'received', 'sent', 'read', 'written'];
  const text = { cpu: percent, throttled: percent, memory: bytes, limit: (value) => (value ? bytes(value) : '–'), pids: String };
  return html`<details class="value-table"><summary>${t('stats.values')}</summary><div class="scroll" tabindex="0" role="region" aria-label=${t('stats.values')}><table>
    <thead><tr><th scope="col">${t('stats.time')}</th>${fields.map((field) => html`<th scope="col" class="right">${field}</th>`)}<th scope="col">OOM</th></tr></thead>
    <tbody>${shown.map(([time, values]) => html`<tr><th scope="row">${new Date(time * 1000).toLocaleTimeString(language())}</th>
      ${fields.map((field) => html`<td class="right mono">${(text[field] ?? rate)(values[F[field]])}</td>`)}
      <td>${marks.filter((each) => Math.abs(each.time - time) < 15).map((each) => each.kills).join()}</td></tr>`)}</tbody></table></div></details>`;
}

function One({ id, name }) {
  const [past, setPast] = useState([]);
  const [error, setError] = useState(null);
  const [, redraw] = useState(0);
  useEffect(() => {
    get(`/jaula/stats?containers=${id}&points=${POINTS}`).then((document) => {
      setPast((document.Containers[id] ?? []).map(([time, ...values]) => [time, values]));
    }, setError);
    return observed.subscribe((kind) => { if (kind === 'stats' && !document.hidden) redraw((n) => n + 1); });
  }, [id]);
  const live = observed.containers.get(id)?.samples ?? [];
  const from = live[0]?.[0] ?? Infinity;
  const newest = live.at(-1)?.[0] ?? 0;
  const rows = [...past.filter(([time]) => time < from - 0.5), ...live].filter(([time]) => time > newest - WINDOW);
  const marks = oomMarks(rows);
  return html`<${ErrorBox} error=${error} />
    <p class="hidden" role="status">${marks.length ? `${name}: ${t('stats.ooms', { count: marks.length })}` : ''}</p>
    <div class="charts">${CHARTS.map((chart) => html`<${Chart} key=${chart.key} chart=${chart} rows=${rows} marks=${marks} />`)}</div>
    <${Values} rows=${rows} marks=${marks} />`;
}

let palette = null;
addEventListener('theme', () => { palette = null; });

/** Return the colours of curves, read once: reading a style makes the browser compute it. */
const colours = () => (palette ??= { line: colour('--accent') || '#2a7', bad: colour('--fails') || 'red' });

/** Draw a small curve of one field on a canvas. */
function drawCurve(node, samples, field, limit) {
  const ratio = devicePixelRatio;
  node.size ??= [node.clientWidth * ratio, node.clientHeight * ratio];
  const [width, height] = node.size;
  if (node.width !== width) { node.width = width; node.height = height; }
  const context = node.getContext('2d');
  context.clearRect(0, 0, width, height);
  const shown = samples.slice(-CURVE);
  if (shown.length < 2) return;
  const values = shown.map(([, each]) => each[F[field]]);
  const most = Math.max(limit ? shown.at(-1)[1][F[limit]] : 0, ...values, 1);
  const step = width / (CURVE - 1);
  context.beginPath();
  values.forEach((value, index) => {
    const x = width - (values.length - 1 - index) * step;
    const y = height - 2 - (value / most) * (height - 4);
    if (index) context.lineTo(x, y); else context.moveTo(x, y);
  });
  context.strokeStyle = colours().line;
  context.lineWidth = 1.4 * ratio;
  context.stroke();
  context.fillStyle = colours().bad;
  for (const { time } of oomMarks(shown)) {
    const index = shown.findIndex(([each]) => each === time);
    context.fillRect(width - (values.length - 1 - index) * step - ratio, 0, 2 * ratio, height);
  }
}

const visible = new Set(); // rows that are on the screen: only these are drawn at each sample
let watcher = null;

function watch(row) {
  watcher ??= new IntersectionObserver((changes) => {
    for (const { target, isIntersecting } of changes) {
      if (isIntersecting) { visible.add(target); target.refresh?.(); } else visible.delete(target);
    }
  }, { rootMargin: '120px' });
  watcher.observe(row);
  return () => { watcher.unobserve(row); visible.delete(row); };
}

function UsageRow({ entry }) {
  const [, redraw] = useState(0);
  const row = useRef(null);
  const cpu = useRef(null);
  const memory = useRef(null);
  useEffect(() => {
    const node = row.current;
    node.refresh = () => redraw((n) => n + 1);
    return watch(node);
  }, []);
  const samples = observed.containers.get(entry.Id)?.samples ?? [];
  useEffect(() => {
    if (!visible.has(row.current)) return;
    drawCurve(cpu.current, samples, 'cpu');
    drawCurve(memory.current, samples, 'memory', 'limit');
  });
  const values = samples.at(-1)?.[1] ?? null;
  const of = (field) => values?.[F[field]] ?? 0;
  return html`<tr ref=${row}><th scope="row"><a href=${`#/stats?c=${entry.Id.slice(0, 12)}`}>${containerName(entry)}</a></th>
    <td><canvas class="curve" ref=${cpu} aria-hidden="true"></canvas><span class="mono">${values ? percent(of('cpu')) : '…'}</span>${of('throttled') > 0.5 ? html` <span class="word relaxed">${percent(of('throttled'))} ${t('stats.throttled')}</span>` : null}</td>
    <td><canvas class="curve" ref=${memory} aria-hidden="true"></canvas><span class="mono"><span class="nowrap">${values ? bytes(of('memory')) : '…'}</span>${of('limit') ? html`<span class="soft"> / ${bytes(of('limit'))}</span>` : null}</span></td>
    <td class="mono">${of('pids')}${of('pids_limit') ? html`<span class="soft"> / ${of('pids_limit')}</span>` : null}</td>
    <td class="mono">↓ ${rate(of('received'))} <br />↑ ${rate(of('sent'))}</td>
    <td class="mono">${rate(of('read'))} <br />${rate(of('written'))}</td>
    <td class=${of('oom') ? 'word fails' : 'soft'}>${of('oom') || '–'}</td></tr>`;
}

const SORTS = ['name', 'cpu', 'memory', 'pids', 'network', 'block'];
const RESORT = 5; // samples between two orders of the rows

function HostPressure() {
  const [, redraw] = useState(0);
  useEffect(() => observed.subscribe((kind) => { if (kind === 'stats' && !document.hidden) redraw((n) => n + 1); }), []);
  const pressure = observed.host?.Pressure ?? [-1];
  return html`<p class="host-pressure">${pressure.some((each) => each >= 0) ? html`<span class="soft">${t('stats.hostpressure')}</span>
    ${['cpu', 'memory', 'block'].map((name, index) => html`<span class="figure"><span class="soft">${t(`stats.${name}`)}</span> <b>${percent(Math.max(0, pressure[index]))}</b></span>`)}` : null}</p>`;
}

function All() {
  const [sort, setSort] = useState('name');
  const [, redraw] = useState(0);
  const samples = useRef(0);
  const order = useRef(sort);
  order.current = sort;
  useEffect(() => observed.subscribe((kind) => {
    if (document.hidden || kind === 'isolation') return;
    if (kind === 'list') { redraw((n) => n + 1); return; }
    samples.current += 1;
    if (order.current !== 'name' && samples.current % RESORT === 1) redraw((n) => n + 1);
    else for (const row of visible) row.refresh();
  }), []);
  const entries = observed.entries();
  const value = (id, key) => {
    const values = observed.latest(id);
    if (!values) return -1;
    if (key === 'network') return values[F.received] + values[F.sent];
    if (key === 'block') return values[F.read] + values[F.written];
    return values[F[key]];
  };
  const rows = sort === 'name' ? entries : [...entries].sort((a, b) => value(b.Id, sort) - value(a.Id, sort));
  if (observed.ready && !entries.length) return html`<${Empty} title=${t('stats.none')} />`;
  return html`<${HostPressure} />
    <div class="table-frame scroll" tabindex="0" role="region" aria-label=${t('stats.all')}><table class="usage"><thead><tr>${SORTS.map((name) => html`<th scope="col" aria-sort=${sort === name ? (name === 'name' ? 'ascending' : 'descending') : null}>
      <button type="button" class="sort" onClick=${() => setSort(name)}>${t(`stats.${name}`)}</button></th>`)}<th scope="col">OOM</th></tr></thead>
    <tbody>${rows.map((entry) => html`<${UsageRow} key=${entry.Id} entry=${entry} />`)}</tbody></table></div>`;
}

function StatsPage({ query }) {
  const [, redraw] = useState(0);
  useEffect(() => observed.subscribe((kind) => { if (kind === 'list') redraw((n) => n + 1); }), []);
  const requested = query.get('c');
  const entry = requested ? observed.entries().find((each) => each.Id.startsWith(requested) || containerName(each) === requested) : null;
  const title = entry ? t('stats.of', { name: containerName(entry) }) : t('stats.title');
  return html`<div class="stats-page"><${PageHead} title=${title} back=${entry ? { href: '#/stats', text: t('stats.all') } : null} />
    <${ErrorBox} error=${observed.error ? { message: observed.error } : null} />
    ${entry ? html`<${One} key=${entry.Id} id=${entry.Id} name=${containerName(entry)} />` : html`<${All} />`}</div>`;
}

export { One as Charts };
export const page = { words, View: StatsPage };
