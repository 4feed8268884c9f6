/** What the chat page does; plain JavaScript for browsers, without anything from elsewhere. */
export const SCRIPT = String.raw`
'use strict';
const at = (id) => document.getElementById(id);
const log = at('log'), form = at('form'), input = at('input'), send = at('send'), status = at('status');
const choice = [at('model'), at('other')];
/** What each side has heard and said; answers differ by model. */
let talks = [[], []];
let stop;
/** By model: tokens and seconds of all answers. */
const paces = new Map();

const make = (tag, className, text) => {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
};

async function listModels() {
  const response = await fetch('v1/models');
  if (!response.ok) throw new Error(await reasonOf(response));
  const { data } = await response.json();
  for (const { id } of data) for (const select of choice) select.append(new Option(id, id));
  at('compare').hidden = data.length < 2;
}

async function reasonOf(response) {
  try { return (await response.json()).error.message; } catch { return 'The server answered ' + response.status + '.'; }
}

/** The objects of a stream of events. */
async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    for (let end = text.indexOf('\n\n'); end !== -1; end = text.indexOf('\n\n')) {
      const event = text.slice(0, end);
      text = text.slice(end + 2);
      if (!event.startsWith('data: ') || event === 'data: [DONE]') continue;
      yield JSON.parse(event.slice(6));
    }
  }
}

function number(id) {
  const value = at(id).valueAsNumber;
  return Number.isFinite(value) ? value : undefined;
}

async function answer(side, box, signal) {
  const model = choice[side].value;
  const said = box.querySelector('.said'), speed = box.querySelector('.speed');
  const system = at('system').value.trim();
  const messages = [...(system ? [{ role: 'system', content: system }] : []), ...talks[side]];
  const began = performance.now();
  let first, last, text = '', tokens = 0, pieces = 0;
  box.classList.add('writing');
  try {
    const response = await fetch('v1/chat/completions', {
      method: 'POST', signal, headers: { 'content-type': 'application/json' },
      body: JSON.stringify({
        model, messages, stream: true, stream_options: { include_usage: true },
        temperature: number('temperature'), max_tokens: number('tokens'),
      }),
    });
    if (!response.ok) throw new Error(await reasonOf(response));
    for await (const event of eventsOf(response.body)) {
      if (event.error) throw new Error(event.error.message);
      if (event.usage) tokens = event.usage.completion_tokens;
      const more = event.choices[0]?.delta.content;
      if (!more) continue;
      last = performance.now();
      first ??= last;
      text += more;
      pieces++;
      said.textContent = text;
      if (last > first) speed.textContent = ((pieces - 1) / (last - first) * 1000).toFixed(1) + ' tokens/s';
      follow();
    }
    const seconds = (last - first) / 1000;
    if (tokens > 1 && seconds > 0) {
      // The first token takes the reading of the prompt; it is told apart.
      const pace = (tokens - 1) / seconds;
      speed.replaceChildren(make('b', '', pace.toFixed(1) + ' tokens/s'),
        ' · ' + tokens + ' tokens · first after ' + Math.round(first - began) + ' ms');
      keepPace(model, side, tokens - 1, seconds);
    } else speed.textContent = tokens + (tokens === 1 ? ' token' : ' tokens');
    status.textContent = model + ' has answered: ' + text;
  } catch (error) {
    if (signal.aborted) speed.textContent = 'stopped';
    else {
      speed.textContent = error.message;
      speed.classList.add('failed');
      status.textContent = model + ' could not answer: ' + error.message;
    }
  } finally {
    box.classList.remove('writing');
  }
  talks[side].push({ role: 'assistant', content: text });
}

function keepPace(model, side, tokens, seconds) {
  const pace = paces.get(model) ?? { tokens: 0, seconds: 0 };
  paces.set(model, { tokens: pace.tokens + tokens, seconds: pace.seconds + seconds, side });
  const all = [...paces].map(([name, one]) => ({ name, side: one.side, rate: one.tokens / one.seconds }));
  const most = Math.max(...all.map(({ rate }) => rate));
  at('paces').replaceChildren(...all.map(({ name, side, rate }) => {
    const row = make('li', side ? 'pace second' : 'pace');
    const track = make('span', 'track'), bar = make('i');
    track.setAttribute('aria-hidden', 'true');
    bar.style.width = (100 * rate / most) + '%';
    track.append(bar);
    const label = make('span', '', name);
    label.title = name;
    row.append(label, track, make('span', '', rate.toFixed(1) + ' tokens/s'));
    return row;
  }));
}

function follow() {
  const main = document.querySelector('main');
  if (main.scrollHeight - main.scrollTop - main.clientHeight < 160) main.scrollTop = main.scrollHeight;
}

async function ask(question) {
  at('empty')?.remove();
  const sides = choice[1].value ? [0, 1] : [0];
  const turn = make('section', 'turn'), answers = make('div', 'answers');
  const asked = make('p', 'said question', question);
  asked.prepend(make('span', 'hidden', 'You: '));
  turn.append(asked, answers);
  const boxes = sides.map((side) => {
    const box = make('article', side ? 'answer second' : 'answer');
    box.append(make('h3', '', choice[side].value), make('p', 'said'), make('p', 'speed', side ? 'waits for its turn' : 'reads …'));
    answers.append(box);
    return box;
  });
  log.append(turn);
  turn.scrollIntoView({ block: 'end' });
  stop = new AbortController();
  send.textContent = 'Stop';
  // One after the other: at the same time they would slow each other down, and no speed would be right.
  for (const side of [0, 1]) {
    talks[side].push({ role: 'user', content: question });
    if (!sides.includes(side)) talks[side].push({ role: 'assistant', content: '' });
    else if (!stop.signal.aborted) {
      boxes[side].querySelector('.speed').textContent = 'reads …';
      await answer(side, boxes[side], stop.signal);
    } else {
      boxes[side].querySelector('.speed').textContent = 'stopped';
      talks[side].push({ role: 'assistant', content: '' });
    }
  }
  // A side that was not asked goes on with what the other has said.
  for (const side of [0, 1]) {
    const mine = talks[side].at(-1), other = talks[1 - side].at(-1);
    if (mine.content === '' && other.content !== '') mine.content = other.content;
  }
  stop = undefined;
  send.textContent = 'Send';
  input.focus();
}

form.addEventListener('submit', (event) => {
  event.preventDefault();
  if (stop) return stop.abort();
  const question = input.value.trim();
  if (question === '' || choice[0].value === '') return;
  input.value = '';
  grow();
  ask(question);
});
const grow = () => {
  input.style.height = 'auto';
  input.style.height = Math.min(input.scrollHeight + 2, 192) + 'px';
};
input.addEventListener('input', grow);
input.addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!stop) form.requestSubmit();
});
document.addEventListener('keydown', (event) => { if (event.key === 'Escape') stop?.abort(); });
at('clear').addEventListener('click', () => {
  stop?.abort();
  talks = [[], []];
  log.replaceChildren();
  input.focus();
});
listModels().catch((error) => { status.classList.remove('hidden'); status.classList.add('failed'); status.textContent = error.message; });
`;
