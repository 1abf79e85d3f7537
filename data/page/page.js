'use strict';
(() => {
// ---- the data: written as JSON, read as text; names and tags only ever become text nodes ----
const read = node => JSON.parse(node.textContent);
const $ = id => document.getElementById(id);
const about = read($('about')), key = 'tags-' + $('key').textContent;
const {tags, thresholds, examples, root} = about;
const photos = Array.from(document.getElementsByClassName('record'), (node, i) => {
  const photo = read(node);
  photo.number = i;
  return photo;
});

// An element with properties and children; a string is a text node, so no name can become markup.
function h(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [k, v] of Object.entries(props)) {
    if (k in node) node[k] = v;
    else node.setAttribute(k, v);
  }
  node.append(...children);
  return node;
}
const jpeg = thumb => 'data:image/jpeg;base64,' + thumb;
const plural = (n, one) => `${n.toLocaleString('en')} ${one}${n === 1 ? '' : 's'}`;
function percent(p) {
  if (p === null || p === undefined) return '–';
  return p >= .995 ? '>99%' : p < .005 ? '<1%' : `${Math.round(100 * p)}%`;
}

// ---- storage: may be denied, then everything is kept until the page is closed ----
let stored = true;
function load(name) {
  try { return JSON.parse(localStorage.getItem(name)); } catch { stored = false; return null; }
}
function store(name, value) {
  try { localStorage.setItem(name, JSON.stringify(value)); } catch { stored = false; }
}

// ---- corrections: {number of photo: {number of tag: 1 or 0}} ----
const saved = load(key) || {};
const said = saved.said || {};
let unexported = Boolean(saved.unexported);
const answer = (photo, t) => (said[photo.number] || {})[t];
const isCorrected = photo => photo.number in said;

function say(photo, t, value) {
  if (photo.error || answer(photo, t) === value) return;
  const answers = said[photo.number] || (said[photo.number] = {});
  if (value === undefined) delete answers[t];
  else answers[t] = value;
  if (!Object.keys(answers).length) delete said[photo.number];
  unexported = Object.keys(said).length > 0;
  store(key, {said, unexported});
  redraw(photo);
  showCounts();
  toast(value === undefined ? `${tags[t]}: answer taken back` : `${tags[t]}: ${value ? 'yes' : 'no'}`);
}

// What is known of a tag in a photo: 'said-yes', 'said-no', 'yes', 'unsure' or ''.
function state(photo, t) {
  const a = answer(photo, t);
  if (a !== undefined) return a ? 'said-yes' : 'said-no';
  return photo.yes.includes(t) ? 'yes' : photo.unsure.includes(t) ? 'unsure' : '';
}
const has = (photo, t) => ['yes', 'said-yes'].includes(state(photo, t));

// Numbers of the tags that say something about a photo: the sure ones first, then by probability.
function decided(photo) {
  const all = new Set([...photo.yes, ...photo.unsure, ...Object.keys(said[photo.number] || {}).map(Number)]);
  const rank = {'said-yes': 0, yes: 0, unsure: 1, 'said-no': 2};
  return [...all].sort((a, b) => rank[state(photo, a)] - rank[state(photo, b)] || photo.p[b] - photo.p[a]);
}

// ---- which photos, in which order ----
let filter = 'all', shown = [], drawn = 0, current = 0;
const kinds = {
  all: ['All', () => true],
  untagged: ['Untagged', photo => !photo.error && !decided(photo).some(t => has(photo, t))],
  unsure: ['Unsure', photo => photo.unsure.some(t => answer(photo, t) === undefined)],
  errors: ['Errors', photo => Boolean(photo.error)],
  corrected: ['Corrected', isCorrected],
};
const tagOf = () => typeof filter === 'number' ? filter : null;
const inTag = (photo, t) => has(photo, t) || state(photo, t) === 'unsure';

function matches(photo) {
  const t = tagOf();
  if (t === null) return kinds[filter][1](photo);
  return !photo.error && ($('below').checked || inTag(photo, t));
}

// How far a photo is from any threshold: of the chosen tag, or of the tag nearest to its own.
function distance(photo) {
  const open = (tagOf() === null ? tags.map((_, t) => t) : [tagOf()]).filter(t => answer(photo, t) === undefined);
  const far = open.map(t => photo.p[t] == null ? Infinity : Math.abs(photo.p[t] - (thresholds[t] ?? .5)));
  return far.reduce((a, b) => Math.min(a, b), Infinity);
}
function score(photo) {
  const p = (tagOf() === null ? photo.p : [photo.p[tagOf()]]).filter(v => v != null);
  return p.reduce((a, b) => Math.max(a, b), -1);
}
const collator = new Intl.Collator(undefined, {numeric: true});
const byName = (a, b) => collator.compare(a.name, b.name) || a.number - b.number;
const byNumber = measure => {
  const value = new Map(shown.map(photo => [photo, measure(photo)]));
  return (a, b) => (value.get(a) === value.get(b) ? 0 : value.get(a) - value.get(b)) || byName(a, b);
};

// Choose and sort anew. Corrections do not call this: a photo stays where it is while one answers.
function choose() {
  const part = $('search').value.toLowerCase();
  shown = photos.filter(photo => matches(photo) && photo.name.toLowerCase().includes(part));
  const order = $('sort').value;
  shown.sort(order === 'name' ? byName : order === 'score' ? byNumber(photo => -score(photo)) : byNumber(distance));
  $('grid').replaceChildren();
  drawn = current = 0;
  drawMore();
  $('below-label').hidden = tagOf() === null;
  $('count').textContent = plural(shown.length, 'photo');
  $('empty').hidden = shown.length > 0;
  $('empty').textContent = photos.length ? 'No photo is here. Choose All, or clear the name.' : 'There are no photos in this report.';
  $('sort').options[1].textContent = tagOf() === null ? 'by best score' : 'by score of this tag';
}

// ---- filters, with their counts ----
function makeFilters() {
  const button = (value, label) => {
    const b = h('button', {type: 'button', onclick: () => { filter = value; showCounts(); choose(); }},
                h('bdi', {}, label), h('span'));
    b.filter = value;
    return b;
  };
  $('filters').replaceChildren(...Object.entries(kinds).map(([k, [label]]) => button(k, label)),
                               h('i', {className: 'gap'}), ...tags.map((tag, t) => button(t, tag)));
}
function showCounts() {
  const count = tags.map(() => 0);
  for (const photo of photos) for (const t of decided(photo)) if (inTag(photo, t)) count[t]++;
  for (const b of $('filters').querySelectorAll('button')) {
    const f = b.filter;
    const n = typeof f === 'number' ? count[f] : photos.filter(kinds[f][1]).length;
    b.lastChild.textContent = n.toLocaleString('en');
    b.setAttribute('aria-pressed', String(f === filter));
  }
  const n = Object.values(said).reduce((sum, answers) => sum + Object.keys(answers).length, 0);
  $('export').disabled = !n;
  $('export').textContent = n ? `Export ${plural(n, 'correction')}` : 'Export corrections';
}

// ---- cards: drawn a hundred at a time, as they are scrolled to ----
function chip(photo, t) {
  const s = state(photo, t);
  const mark = {unsure: '? ', 'said-yes': '✓ ', 'said-no': '✗ '}[s] || '';
  return h('span', {className: `chip ${s || 'plain'}`}, mark, h('bdi', {}, tags[t]), ' ', h('b', {}, percent(photo.p[t])));
}
const words = {'said-yes': 'you said yes', 'said-no': 'you said no', yes: 'tagged', unsure: 'unsure', '': 'not tagged'};
const inWords = (photo, t) => `${tags[t]} ${percent(photo.p[t])}, ${words[state(photo, t)]}`;

function card(photo, place) {
  const t = tagOf(), list = decided(photo);
  if (t !== null && !list.includes(t)) list.push(t);
  const image = photo.thumb ? h('img', {alt: '', loading: 'lazy', decoding: 'async', src: jpeg(photo.thumb)})
    : h('span', {className: 'broken'}, photo.error || 'no thumbnail');
  const chips = list.slice(0, 6).map(k => chip(photo, k));
  if (list.length > 6) chips.push(h('span', {className: 'chip plain'}, `+${list.length - 6}`));
  if (!list.length) chips.push(h('span', {className: 'chip plain'}, photo.error ? 'cannot be read' : 'no tag'));
  const label = photo.error ? `cannot be read: ${photo.error}` : list.map(k => inWords(photo, k)).join('; ') || 'no tag';
  return h('button', {type: 'button', className: 'card', tabIndex: place === current ? 0 : -1, title: photo.name,
    'aria-label': `${photo.name}: ${label}`, onclick: () => open(place), onfocus: () => mark(place)},
    h('span', {className: 'image'}, image), h('span', {className: 'chips'}, ...chips),
    h('bdi', {className: 'name'}, photo.name));
}
const cardAt = place => $('grid').children[place]?.firstChild;

function drawMore(upTo = drawn) {
  const end = Math.min(shown.length, Math.max(drawn, upTo) + 100), some = document.createDocumentFragment();
  for (; drawn < end; drawn++) some.append(h('li', {}, card(shown[drawn], drawn)));
  $('grid').append(some);
}
function redraw(photo) {
  const place = shown.indexOf(photo), old = cardAt(place);
  if (old) {
    const focused = document.activeElement === old, fresh = card(photo, place);
    old.replaceWith(fresh);
    if (focused) fresh.focus({preventScroll: true});
  }
  if ($('photo').open) drawRows();
}
function mark(place) {
  const old = cardAt(current);
  if (old) old.tabIndex = -1;
  current = place;
  if (place >= drawn) drawMore(place);
  cardAt(place).tabIndex = 0;
}
function focusCard(place) {
  if (place < 0 || place >= shown.length) return;
  mark(place);
  cardAt(place).focus({preventScroll: true});
  cardAt(place).scrollIntoView({block: 'nearest'});
}
new IntersectionObserver(seen => { if (seen[0].isIntersecting && drawn < shown.length) { drawMore(); watch(); } },
                         {rootMargin: '1500px'}).observe($('more'));
// An observer speaks only when something changes: look again while the end is still in view.
function watch() {
  requestAnimationFrame(() => {
    if (drawn < shown.length && $('more').getBoundingClientRect().top < innerHeight + 1500) { drawMore(); watch(); }
  });
}

// ---- an opened photo ----
let tag = null, heat = true, at = 0;
const opened = () => shown[at];
const order = photo => tags.map((_, t) => t).sort((a, b) => (photo.p[b] ?? -1) - (photo.p[a] ?? -1) || a - b);

function open(place) {
  at = place;
  const photo = opened(), first = decided(photo)[0];
  tag = photo.error ? null : tagOf() ?? first ?? order(photo)[0] ?? null;
  $('photo-name').replaceChildren(h('bdi', {}, photo.name));
  $('position').textContent = `${(place + 1).toLocaleString('en')} of ${shown.length.toLocaleString('en')}`;
  $('previous').disabled = place === 0;
  $('next').disabled = place === shown.length - 1;
  $('rows').replaceChildren();
  if (!$('photo').open) $('photo').showModal();
  drawPhoto();
  drawRows();
  $('photo').scrollTop = $('rows').scrollTop = 0;
  focusRow();
}
function step(by) {
  const place = at + by;
  if (place >= 0 && place < shown.length) open(place);
}
function pick(t) { tag = t; drawPhoto(); drawRows(); }
function focusRow() {
  const row = $('rows').querySelector('.marked .row');
  (row || $('close')).focus({preventScroll: true});
  if (row) row.parentNode.scrollIntoView({block: 'nearest'});
}

// The image in grey and the heat of the marked tag over it, in one hue.
function drawPhoto() {
  const photo = opened(), values = tag === null ? null : photo.heats[tag];
  const frame = $('frame'), on = Boolean(values && heat && photo.thumb);
  if (!photo.thumb) frame.replaceChildren(h('p', {className: 'broken'}, photo.error || 'no thumbnail'));
  else {
    const img = h('img', {alt: `Photo ${photo.name}`, src: jpeg(photo.thumb)});
    img.onload = () => frame.classList.add(img.naturalWidth >= img.naturalHeight ? 'wide' : 'tall');
    frame.replaceChildren(img);
    if (on) frame.append(canvas(values));
  }
  frame.classList.toggle('heated', on);
  const switcher = h('button', {type: 'button', onclick: () => toggleHeat()}, heat ? 'hide' : 'show');
  const legend = !values ? [photo.error || tag === null ? '' : 'No heat was made for this tag.']
    : heat ? ['The more orange, the more it spoke for ', h('bdi', {}, tags[tag]), `: most ${where(values)}. `, switcher]
      : ['The heat is hidden. ', switcher];
  $('legend').replaceChildren(...legend);
  drawSpoke(photo);
}
function toggleHeat() { heat = !heat; drawPhoto(); }
const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));

function canvas([rows, cols, text]) {
  const c = h('canvas', {width: cols, height: rows, 'aria-hidden': 'true'});
  const image = new ImageData(cols, rows), hue = [255, 112, 8];
  bytes(text).forEach((v, i) => image.data.set([...hue, .82 * v], 4 * i));
  c.getContext('2d').putImageData(image, 0, 0);
  return c;
}
// The warmest place in words, for who cannot see it.
function where([rows, cols, text]) {
  const b = bytes(text), i = b.indexOf(b.reduce((x, y) => Math.max(x, y), 0));
  const part = (k, n, names) => names[Math.min(2, Math.floor(3 * (k + .5) / n))];
  const v = part(Math.floor(i / cols), rows, ['at the top', '', 'at the bottom']);
  const side = part(i % cols, cols, ['left', '', 'right']);
  return v ? `${v} ${side}`.trim() : side ? `on the ${side}` : 'in the middle';
}

function bar(p, limit, name = '') {
  const node = h('span', {className: `bar ${name}`}), fill = h('span', {className: 'fill'});
  fill.style.width = `${100 * Math.min(1, Math.max(0, p ?? 0))}%`;
  node.append(fill);
  if (limit != null) {
    const line = h('span', {className: 'limit', title: `threshold ${percent(limit)}`});
    line.style.left = `${100 * limit}%`;
    node.append(line);
  }
  return node;
}
function drawRows() {
  const photo = opened(), focus = document.activeElement?.dataset?.focus;
  if (photo.error) return $('rows').replaceChildren();
  $('rows').replaceChildren(...order(photo).map(t => row(photo, t)));
  const again = focus && $('rows').querySelector(`[data-focus="${focus}"]`);
  if (again) (again.disabled ? $('rows').querySelector(`[data-focus="row-${focus.split('-')[1]}"]`) : again).focus({preventScroll: true});
}
function row(photo, t) {
  const s = state(photo, t), a = answer(photo, t), here = t === tag, limit = thresholds[t];
  const given = photo.yes.includes(t) ? 'is-yes' : photo.unsure.includes(t) ? 'is-unsure' : '';
  const label = `${inWords(photo, t)}${limit == null ? '' : `, threshold ${percent(limit)}`}`;
  const mark = {unsure: '? ', 'said-yes': '✓ ', 'said-no': '✗ '}[s] || '';
  const main = h('button', {type: 'button', className: 'row', 'aria-label': label, 'aria-pressed': String(here),
    tabIndex: here ? 0 : -1, onclick: () => { pick(t); focusRow(); }},
    h('span', {className: `chip ${s || 'plain'}`}, mark, h('bdi', {}, tags[t])),
    h('span', {className: 'number'}, percent(photo.p[t])), bar(photo.p[t], limit, given));
  main.dataset.focus = `row-${t}`;
  const choice = (name, text, value, title) => {
    const b = h('button', {type: 'button', className: name, title, 'aria-label': `${title}: ${tags[t]}`,
      tabIndex: here ? 0 : -1, onclick: () => { if (t !== tag) pick(t); say(photo, t, value); }}, text);
    if (name === 'u') b.disabled = a === undefined;
    else b.setAttribute('aria-pressed', String(a === value));
    b.dataset.focus = `${name}-${t}`;
    return b;
  };
  const answers = h('span', {className: 'answers', role: 'group', 'aria-label': `Correct ${tags[t]}`},
    choice('y', '✓', 1, 'Yes (y)'), choice('n', '✗', 0, 'No (n)'), choice('u', '↺', undefined, 'Unsure, take it back (u)'));
  return h('li', {className: here ? 'marked' : ''}, main, answers);
}
const itsName = -1;  // stands for the tag's name among the examples
function drawSpoke(photo) {
  const list = tag === null ? [] : (photo.spoke[tag] || []).filter(([k]) => k === itsName || examples[k]);
  $('spoke-title').replaceChildren(...tag === null ? [] : list.length
    ? ['What spoke for ', h('bdi', {}, tags[tag])] : ['Nothing spoke for ', h('bdi', {}, tags[tag])]);
  $('spoke-title').parentNode.hidden = tag === null;
  $('spoke').replaceChildren(...list.map(([k, share]) => {
    const e = k === itsName ? {name: 'its name', thumb: '', tags: [tag]} : examples[k];
    const image = e.thumb ? h('img', {alt: `Example ${e.name}`, src: jpeg(e.thumb)})
      : h('span', {className: 'none'}, k === itsName ? 'Aa' : '');
    return h('li', {}, image, h('div', {}, h('b', {}, percent(share)), ' of what spoke for it', bar(share, null),
      h('bdi', {className: 'who', title: e.name}, e.name),
      h('bdi', {className: 'who'}, e.tags.map(t => tags[t]).join(', '))));
  }));
}

// ---- corrections.csv ----
// RFC 4180. Every cell stays exact, also one that a spreadsheet would take for a formula: the file is read by a program.
const cell = text => /[",\r\n]/.test(text) || /^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
function table() {
  const folder = !root || root.endsWith('/') ? root : root + '/';
  const lines = [['image', ...tags]];
  for (const photo of photos.filter(isCorrected)) {
    lines.push([folder + photo.name, ...tags.map((_, t) => String(answer(photo, t) ?? ''))]);
  }
  return lines.map(line => line.map(cell).join(',') + '\r\n').join('');
}
// UTF-8; a byte of a file name that was no UTF-8 (U+DC80 to U+DCFF, as Python reads it) becomes that byte again.
function encoded(text) {
  const parts = text.split(/([\udc80-\udcff])/u).map((part, k) => k % 2 ? Uint8Array.of(part.charCodeAt(0) - 0xdc00) : part);
  return new Blob(parts, {type: 'text/csv'});
}
function exportCorrections() {
  const n = Object.keys(said).length;
  if (!n) return;
  const link = h('a', {href: URL.createObjectURL(encoded(table())), download: 'corrections.csv'});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  unexported = false;
  store(key, {said, unexported});
  toast(`corrections.csv: ${plural(n, 'photo')}`);
}
addEventListener('beforeunload', event => { if (unexported) { event.preventDefault(); event.returnValue = ''; } });

// ---- theme, help, messages ----
function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  $('theme').setAttribute('aria-pressed', String(theme === 'dark'));
}
const prefersDark = matchMedia('(prefers-color-scheme: dark)');
const system = () => setTheme(prefersDark.matches ? 'dark' : 'light');
let theme = load('tags-theme');
if (theme === 'dark' || theme === 'light') setTheme(theme);
else { system(); prefersDark.addEventListener('change', () => theme || system()); }
$('theme').onclick = () => {
  theme = document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark';
  setTheme(theme);
  store('tags-theme', theme);
};
let timer = 0;
function toast(text) {
  $('toast').textContent = text;
  $('toast').classList.add('on');
  clearTimeout(timer);
  timer = setTimeout(() => $('toast').classList.remove('on'), 2500);
  // what is shown in the top layer covers everything else
  ($('photo').open ? $('photo') : document.body).append($('toast'));
}
function help() {
  $('kept').textContent = stored ? 'are kept in this browser.' : 'are lost when the page is closed: this browser stores nothing for it.';
  $('help').showModal();
}

// ---- mouse and keyboard ----
$('export').onclick = exportCorrections;
$('ask').onclick = help;
$('help-close').onclick = () => $('help').close();
$('close').onclick = () => $('photo').close();
$('previous').onclick = () => step(-1);
$('next').onclick = () => step(1);
$('sort').onchange = $('below').onchange = $('search').oninput = () => choose();
$('photo').addEventListener('close', () => { document.body.append($('toast')); focusCard(at); });
for (const d of document.querySelectorAll('dialog')) {
  d.addEventListener('click', event => { if (event.target === d) d.close(); });    // a click beside it
}

const answers = {y: 1, n: 0, u: undefined};
function keyInPhoto(k) {
  const list = order(opened());
  if (k === 'ArrowLeft') step(-1);
  else if (k === 'ArrowRight') step(1);
  else if (tag === null) return false;
  else if (k === 'ArrowUp' || k === 'ArrowDown') {
    const t = list[list.indexOf(tag) + (k === 'ArrowUp' ? -1 : 1)];
    if (t !== undefined) pick(t);
    focusRow();
  } else if (k in answers) say(opened(), tag, answers[k]);
  else if (k === 'h') toggleHeat();
  else return false;
  return true;
}
function keyInGrid(k, onCard) {
  const columns = getComputedStyle($('grid')).gridTemplateColumns.split(' ').length;
  const by = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns}[k];
  if (k === '/') $('search').focus();
  else if (by && onCard) focusCard(current + by);
  else if (k === 'Home' && onCard) focusCard(0);
  else if (k === 'End' && onCard) focusCard(shown.length - 1);
  else if (by && document.activeElement === document.body) focusCard(current);
  else if (k in answers && onCard) {
    if (tagOf() === null) toast('Choose a tag above first, or open the photo (Enter).');
    else say(shown[current], tagOf(), answers[k]);
  } else return false;
  return true;
}
addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey || $('help').open) return;
  const k = event.key.length === 1 ? event.key.toLowerCase() : event.key, target = event.target;
  if (target.matches('input[type="search"], select')) {
    if (k === 'Escape' && target.value && target.type === 'search') { target.value = ''; choose(); }
    return;
  }
  if (k === '?') { help(); event.preventDefault(); return; }
  const done = $('photo').open ? keyInPhoto(k) : keyInGrid(k, target.classList.contains('card'));
  if (done) event.preventDefault();
});

// ---- begin ----
// What is scrolled to must not lie under the head, where that stays in view.
new ResizeObserver(() => {
  const head = document.querySelector('header'), stays = getComputedStyle(head).position === 'sticky';
  document.documentElement.style.scrollPaddingTop = `${stays ? head.offsetHeight + 8 : 8}px`;
}).observe(document.querySelector('header'));
const failed = photos.filter(photo => photo.error).length;
$('summary').textContent = [plural(photos.length, 'photo'), plural(tags.length, 'tag'), plural(examples.length, 'example')]
  .concat(failed ? [`${failed.toLocaleString('en')} cannot be read`] : []).join(' · ');
makeFilters();
showCounts();
choose();
})();
