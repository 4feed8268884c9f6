/** The chat page's looks: the system's fonts, light or dark as the system is. */
export const STYLE = String.raw`
:root {
  color-scheme: light dark;
  --ground: #f6f6f3; --panel: #ffffff; --ink: #1d2021; --soft: #5d6468; --line: #d9dad5;
  --mine: #e6eef8; --first: #2f6fb3; --second: #b3572a; --danger: #a3262a; --focus: #2f6fb3;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #16181a; --panel: #1f2225; --ink: #e7e8e6; --soft: #a2a9ad; --line: #363b3f;
    --mine: #243447; --first: #74ace6; --second: #e89a6b; --danger: #f08a8d; --focus: #9cc5f0;
  }
}
* { box-sizing: border-box; }
html, body { height: 100%; margin: 0; overflow: hidden; }
body {
  display: grid; grid-template-rows: auto 1fr auto; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
header, footer { background: var(--panel); border: 0 solid var(--line); padding: .6rem max(1rem, calc(50vw - 30rem)); }
header { border-bottom-width: 1px; }
footer { border-top-width: 1px; }
.bar { display: flex; flex-wrap: wrap; align-items: center; gap: .5rem 1rem; }
h1 { font-size: 1.05rem; font-weight: 650; margin: 0; flex: 1 1 auto; }
label { display: inline-flex; align-items: center; gap: .4rem; color: var(--soft); font-size: .875rem; }
select, input, textarea, button {
  font: inherit; color: var(--ink); background: var(--ground); border: 1px solid var(--line); border-radius: .5rem;
}
select, input { padding: .3rem .5rem; max-width: 15rem; }
input[type="number"] { width: 5.5rem; }
button { padding: .45rem .9rem; cursor: pointer; }
button.primary { background: var(--first); border-color: var(--first); color: var(--panel); font-weight: 600; min-width: 5rem; }
button:disabled { opacity: .5; cursor: default; }
:focus-visible { outline: 3px solid var(--focus); outline-offset: 1px; }
details { font-size: .875rem; margin-top: .4rem; }
summary { color: var(--soft); cursor: pointer; width: fit-content; border-radius: .25rem; }
details .bar { padding: .5rem 0 .2rem; }
details textarea { width: 100%; min-height: 2.6rem; padding: .4rem .6rem; }
main { overflow-y: auto; padding: 1rem max(1rem, calc(50vw - 30rem)); }
.empty { color: var(--soft); text-align: center; margin: 16vh auto 0; max-width: 30rem; }
.empty strong { display: block; color: var(--ink); font-size: 1.25rem; margin-bottom: .3rem; }
.turn { margin: 0 0 1.25rem; }
.said { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; }
.question { background: var(--mine); border-radius: .9rem .9rem .2rem .9rem; padding: .55rem .85rem; margin: 0 0 .7rem auto; max-width: 85%; width: fit-content; }
.answers { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 17rem), 1fr)); }
.answer { background: var(--panel); border: 1px solid var(--line); border-top: 3px solid var(--tone, var(--first)); border-radius: .6rem; padding: .6rem .85rem; min-width: 0; }
.answer h3 { font-size: .8125rem; font-weight: 600; color: var(--tone, var(--first)); margin: 0 0 .25rem; overflow-wrap: anywhere; }
.answer .speed { color: var(--soft); font-size: .8125rem; margin: .45rem 0 0; font-variant-numeric: tabular-nums; }
.answer .speed b { color: var(--ink); }
.answer.second, .pace.second { --tone: var(--second); }
.failed { color: var(--danger); }
.writing .said::after { content: ""; display: inline-block; width: .5em; height: 1em; margin-left: .1em; vertical-align: -.15em; background: var(--tone, var(--first)); animation: blink 1s steps(2) infinite; }
@keyframes blink { 50% { opacity: 0; } }
@media (prefers-reduced-motion: reduce) { .writing .said::after { animation: none; } }
.hint { color: var(--soft); font-size: .75rem; margin: .3rem 0 0 .25rem; }
form { display: flex; gap: .6rem; align-items: flex-end; }
form textarea { flex: 1; resize: none; padding: .5rem .75rem; max-height: 12rem; min-height: 2.6rem; }
#paces { display: grid; gap: .25rem; margin: 0 0 .6rem; padding: 0; list-style: none; font-size: .8125rem; }
#paces:empty { display: none; }
.pace { display: grid; grid-template-columns: minmax(0, 11rem) 1fr 7.5rem; gap: .6rem; align-items: center; }
.pace span:first-child { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; color: var(--soft); }
.pace span:last-child { text-align: right; font-variant-numeric: tabular-nums; }
.track { background: var(--ground); border-radius: 1rem; height: .55rem; overflow: hidden; }
.track i { display: block; height: 100%; border-radius: 1rem; background: var(--tone, var(--first)); transition: width .3s; }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
@media (max-width: 34rem) {
  header, footer { padding: .5rem .75rem; }
  .pace { grid-template-columns: minmax(0, 7rem) 1fr 6.2rem; }
  .hint { display: none; }
  h1 { flex-basis: 100%; }
  label { flex: 1 1 8rem; } select { flex: 1; min-width: 0; max-width: none; }
}
`;
