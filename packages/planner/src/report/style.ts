import { cssVariables, DARK, LIGHT } from './palette.js';

/** The page's style: fonts of the system, one measure, light and dark by the reader's preference, light on paper. */
export const STYLE = `
:root{color-scheme:light dark;${cssVariables(LIGHT)}}
@media screen and (prefers-color-scheme:dark){:root{${cssVariables(DARK)}}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1120px;margin:0 auto;padding:0 20px}
main{padding-bottom:64px}
header{padding:36px 0 8px}
h1{font-size:clamp(24px,4vw,34px);line-height:1.2;margin:4px 0 12px;overflow-wrap:anywhere;font-weight:650;letter-spacing:-.01em}
h2{font-size:21px;line-height:1.3;margin:0 0 10px;font-weight:650;letter-spacing:-.005em}
h3{font-size:15px;margin:20px 0 6px;font-weight:650}
h4{font-size:13px;margin:0 0 4px;font-weight:600;color:var(--muted)}
p{margin:0 0 12px;max-width:76ch}
p,li,td,th,dd{overflow-wrap:break-word}
a{color:var(--accent)}
a:focus-visible,summary:focus-visible,button:focus-visible,[tabindex]:focus-visible{outline:2px solid var(--accent);outline-offset:3px}
.kicker,.quiet,figcaption,caption,small{color:var(--muted)}
.kicker{margin:0;font-size:13px}
.lead{font-size:18px;line-height:1.45;max-width:66ch}
p.quiet{font-size:13px}
nav ul{display:flex;flex-wrap:wrap;gap:2px 18px;list-style:none;margin:0;padding:10px 0;border-bottom:1px solid var(--rule);font-size:13px}
section{padding-top:36px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(220px,1fr));gap:1px;background:var(--rule);border:1px solid var(--rule);margin:20px 0 12px}
.tiles>div{background:var(--paper);padding:12px 14px}
.tiles dt{font-size:13px;color:var(--muted)}
.tiles dd{margin:0}
.tiles strong{display:block;font-size:27px;line-height:1.25;font-weight:650;font-variant-numeric:tabular-nums}
small{display:block;font-size:12px;line-height:1.35}
figure{margin:14px 0 18px}
figcaption{font-size:13px;max-width:86ch;margin-top:8px}
.panels{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(300px,100%),1fr));gap:8px 20px}
.panels h3{margin:8px 0 2px}
.scroll{position:relative;overflow-x:auto;margin:12px 0 16px}
table{border-collapse:collapse;font-size:14px;line-height:1.4;font-variant-numeric:tabular-nums;min-width:min(100%,560px)}
caption{text-align:left;font-size:13px;padding:0 0 6px}
th,td{padding:5px 12px 5px 0;vertical-align:top;text-align:right;font-weight:400}
th.text,td.text{text-align:left}
thead th{font-weight:600;border-bottom:1px solid var(--ink);vertical-align:bottom}
.bare thead th{padding:0}
tbody th[scope=row]{position:sticky;left:0;background:var(--paper)}
tbody tr{border-bottom:1px solid var(--grid)}
tbody tr:last-child{border-bottom-color:var(--rule)}
tr.section th{text-align:left;color:var(--muted);font-size:13px;padding-top:12px}
td.number,tbody th.number{white-space:nowrap}
td.number small{white-space:nowrap}
#rows tbody th.text{min-width:140px}
#rows thead th.number{max-width:92px}
.best{font-weight:650;color:var(--s2)}
code,pre{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace;font-size:13px}
.hash{font-size:12px;overflow-wrap:anywhere}
#texts .hash{white-space:nowrap}
#recovery-steps{min-width:800px}
pre{background:var(--panel);padding:12px 14px;margin:0;overflow-x:auto;white-space:pre-wrap;overflow-wrap:anywhere;flex:1 1 auto;min-width:0}
.command{display:flex;gap:8px;align-items:flex-start}
button{font:inherit;font-size:13px;color:var(--ink);background:var(--panel);border:1px solid var(--rule);border-radius:3px;padding:8px 12px;cursor:pointer}
details{margin:8px 0 12px}
summary{cursor:pointer;color:var(--accent);font-size:14px;padding:4px 0;width:fit-content}
.legend{display:flex;flex-wrap:wrap;align-items:center;gap:4px 18px;list-style:none;margin:8px 0;padding:0;font-size:13px;max-width:none}
.legend li{display:flex;align-items:center;gap:6px}
.legend.rows{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(330px,100%),1fr))}
.legend.rows{align-items:start}
.legend.rows li{align-items:baseline}
.legend.rows b{min-width:1.1em}
p.legend{gap:4px 8px}
.footnotes{font-size:13px;color:var(--muted);padding-left:20px;margin:0 0 14px}
.notes{padding-left:20px;max-width:80ch}
.notes li{margin-bottom:6px}
.sample{border-top:1px solid var(--rule);padding:2px 0 6px;margin-bottom:8px}
.sample h3{margin-top:10px;overflow-wrap:anywhere}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(300px,100%),1fr));gap:10px 28px}
.says{white-space:pre-wrap;overflow-wrap:anywhere;margin:0 0 8px}
.says u{text-decoration-thickness:1px;text-decoration-color:var(--s1);text-underline-offset:3px}
.stack{display:flex;flex-wrap:wrap;align-items:flex-start;list-style:none;margin:14px 0;padding:0;row-gap:16px}
.stack li{width:48px;text-align:center;font-size:11px;line-height:1.2;color:var(--muted)}
.stack svg{display:block}
.stack span{display:block;margin-top:2px}
.unseen{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
.narrow{display:none}
svg.chart{display:block;width:100%;height:auto;max-width:900px}
.panels svg.chart{max-width:420px}
svg.key{flex:none;vertical-align:-2px;overflow:visible}
svg text{font-family:inherit;fill:var(--ink)}
.tick{font-size:12px;fill:var(--muted)!important;font-variant-numeric:tabular-nums}
.label{font-size:12px}
.label,.letter{paint-order:stroke;stroke:var(--paper);stroke-width:4px;stroke-linejoin:round}
.value{font-variant-numeric:tabular-nums}
.letter{font-size:12px;font-weight:650}
.number{fill:var(--ink)}
.grid{stroke:var(--grid);fill:none}
.base{stroke:var(--muted);fill:none}
.line{fill:none;stroke-width:1.6;stroke-linejoin:round}
.whisker{fill:none;stroke-width:1.5}
path.lead{fill:none;stroke:var(--muted);stroke-width:.8}
.mark{stroke-width:1.6}
.mark.open{fill:none!important}
.ring{fill:none;stroke:var(--ink);stroke-width:1.3}
${LIGHT.series.map((_, i) => `.s${i}{stroke:var(--s${i})}.mark.s${i}{fill:var(--s${i})}`).join('')}
.mark.hollow{fill:var(--paper)}
${LIGHT.heat.map((_, i) => `.h${i}{fill:var(--h${i})}`).join('')}
.swatch{stroke:var(--muted)}
.halo,.frame,.cursor{fill:none}
.halo{stroke:var(--paper);stroke-width:4}
.frame{stroke:var(--s1);stroke-width:2}
.cursor{stroke:var(--ink);stroke-width:2.5}
.heat{width:600px;max-width:100%}
.beside{display:flex;flex-wrap:wrap;gap:8px 36px;align-items:flex-start}
.beside>div{max-width:100%}
.beside>.legend{flex-direction:column;align-items:flex-start}
.heat svg{touch-action:pan-y}
.readout{font-size:14px;min-height:1.5em;margin:6px 0;font-variant-numeric:tabular-nums}
.wire{fill:none;stroke:var(--muted);stroke-width:1.2}
.box{fill:var(--panel);stroke:var(--muted)}
.box.grouped{stroke:var(--s0);stroke-width:1.8}
.bypass{fill:none;stroke:var(--s1);stroke-width:1.6;stroke-dasharray:3 2}
.bars{display:block}
.before{fill:var(--paper);stroke:var(--s0)}
.after{fill:var(--s0);stroke:var(--s0)}
.refused{fill:var(--paper);stroke:var(--s1);stroke-dasharray:3 2}
@media (max-width:640px){main{padding-left:14px;padding-right:14px}header{padding-top:22px}.lead{font-size:17px}.wide{display:none}.narrow{display:block}.heat .tick{font-size:16px}.beside>.legend{flex-direction:row}#rows tbody th.text{min-width:112px;max-width:132px}}
@media (forced-colors:active){svg.chart,svg.key,.stack svg,.bars{forced-color-adjust:none;background:var(--paper)}}
@media print{body{font-size:10.5pt;print-color-adjust:exact;-webkit-print-color-adjust:exact}main{max-width:none;padding:0}nav,button,.readout{display:none}section{padding-top:18pt}h2,h3,h4,caption{break-after:avoid}figure,tr,.sample,.tiles{break-inside:avoid}tr.section{break-after:avoid}.scroll{overflow:visible}tbody th[scope=row]{position:static}#recovery-steps{min-width:0}table{font-size:8.5pt}th,td{padding-right:7pt}.wide{display:block}.narrow{display:none}details::details-content{content-visibility:visible;height:auto}summary{color:var(--ink)}}
`;
