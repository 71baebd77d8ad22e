// Values as text for people. Every function returns a string.
import {language, t} from './i18n.js';

export const shortId = id => String(id || '').replace(/^sha256:/, '').slice(0, 12);

export function bytes(count) {
  if (!Number.isFinite(count) || count < 0) return '–';
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];
  let value = count;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

// Memory and limits have binary units, as `docker run --memory` reads them.
export function memory(count) {
  if (!Number.isFinite(count) || count < 0) return '–';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = count;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${Number.isInteger(value) || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

export const number = value => new Intl.NumberFormat(language()).format(value);

const STEPS = [['year', 31536000], ['month', 2592000], ['week', 604800], ['day', 86400], ['hour', 3600], ['minute', 60], ['second', 1]];

// 'time' is seconds since 1970, or a text that Date reads.
export function ago(time) {
  const then = typeof time === 'number' ? time * 1000 : Date.parse(time);
  if (!Number.isFinite(then) || then <= 0) return '–';
  const seconds = (then - Date.now()) / 1000;
  const [unit, size] = STEPS.find(([, step]) => Math.abs(seconds) >= step) || STEPS[6];
  return new Intl.RelativeTimeFormat(language(), {numeric: 'auto', style: 'short'}).format(Math.trunc(seconds / size), unit);
}

export function date(time) {
  const then = typeof time === 'number' ? new Date(time * 1000) : new Date(time);
  if (Number.isNaN(then.getTime()) || then.getTime() <= 0) return '–';
  return new Intl.DateTimeFormat(language(), {dateStyle: 'medium', timeStyle: 'medium'}).format(then);
}

const UNIT = /^(?:(\d+)|About an?|Less than a) (second|minute|hour|day|week|month|year)s?$/;
const STATUS = /^(?:(Up)|(Exited|Restarting) \((-?\d+)\)) (.+?)(?: ago)?(?: \((Paused|healthy|unhealthy|health: starting)\))?$/;

// The status of a container ('Up 2 minutes (healthy)') in the language in use. Texts that are not
// known stay as they are. Source: moby, container/state.go.
export function statusText(status) {
  const [, up, ended, code, span, note] = STATUS.exec(status) || [];
  const [, count, unit] = UNIT.exec(span || '') || [];
  if (!unit) return status === 'Created' ? t('state.created') : status;
  const time = new Intl.NumberFormat(language(), {style: 'unit', unit, unitDisplay: 'long'}).format(Number(count || 1));
  const text = t(up ? 'status.up' : ended === 'Exited' ? 'status.exited' : 'status.restarting', {code, time});
  const notes = {Paused: 'status.paused', healthy: 'status.healthy', unhealthy: 'status.unhealthy', 'health: starting': 'status.starting'};
  return note ? `${text} (${t(notes[note])})` : text;
}

// A name of a container without its slash.
export const containerName = container => String(container.Names?.[0] || container.Name || shortId(container.Id)).replace(/^\//, '');

export {shellWord} from './words.js';
