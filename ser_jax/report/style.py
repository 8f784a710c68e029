"""How report.html looks: on a wide screen, on a phone, in the dark and in print."""

CSS = """
:root{--paper:#fbfaf6;--card:#fff;--ink:#1c2430;--soft:#5a6472;--line:#dedad0;--grid:#ebe8df;
--p0:#0072b2;--p1:#c64f00;--p2:#00805c;--p3:#a3478a;--holds:#17724a;--fails:#b3261e;--open:#5f6875;
--serif:"Iowan Old Style","Palatino Linotype",Palatino,"Book Antiqua",Georgia,serif;
--sans:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
--mono:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;color-scheme:light dark}
@media (prefers-color-scheme:dark){:root{--paper:#14181d;--card:#1b2027;--ink:#e7e9ec;
--soft:#a3acb8;--line:#323a45;--grid:#272e37;--p0:#5cb3e6;--p1:#f08a4b;--p2:#3fc79a;--p3:#dd8fc6;--holds:#5fce96;
--fails:#ff8a80;--open:#aab3bf}figure img:not(.raster){filter:invert(.9) hue-rotate(180deg)}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-behavior:smooth}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 var(--sans);
font-variant-numeric:tabular-nums;overflow-wrap:break-word}
header,nav,main{max-width:70rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:2.5rem}
h1,h2,h3{font-family:var(--serif);line-height:1.2;font-weight:600;text-wrap:balance}
h1{font-size:clamp(1.9rem,5vw,3.1rem);margin:0 0 .4rem;letter-spacing:-.015em}
h2{font-size:clamp(1.4rem,3vw,1.85rem);margin:0 0 1rem;padding-top:1.6rem;
border-top:2px solid var(--ink)}
h3{font-size:1.12rem;margin:0 0 .4rem}
p{margin:0 0 1rem;max-width:46rem}
a{color:var(--p0);text-underline-offset:.15em}
code{font:.92em var(--mono)}
.subtitle{font-size:1.12rem;color:var(--soft);max-width:48rem}
.lead{font-family:var(--serif);font-size:1.22rem;line-height:1.5}
.note,figcaption,.caption{color:var(--soft);font-size:.88rem}
section{margin:0 0 3rem}
nav h2{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
nav ol{list-style:none;display:flex;flex-wrap:wrap;gap:.3rem 1.1rem;margin:0 0 1.6rem;
padding:.7rem 0;border-top:1px solid var(--line);border-bottom:1px solid var(--line);
font-size:.9rem}
nav a{text-decoration:none}nav a:hover{text-decoration:underline}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(10rem,1fr));gap:.8rem;
margin:0 0 1.4rem}
.tile{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:.8rem 1rem}
.tile dt{font-size:.82rem;color:var(--soft);margin:0}
.tile dd{margin:0}
.tile strong{display:block;font:600 1.75rem/1.25 var(--serif)}
.tile span{font-size:.84rem;color:var(--soft)}
.key{list-style:none;display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;padding:0;margin:0 0 .6rem;
font-size:.88rem}
.key svg{vertical-align:-1px;margin-right:.4rem}
.forest{list-style:none;margin:0 0 .8rem;padding:.5rem 1rem;background:var(--card);
border:1px solid var(--line);border-radius:10px}
.forest li{display:grid;grid-template-columns:minmax(9rem,16rem) 1fr 2.6rem;gap:0 1rem;
align-items:center;border-top:1px solid var(--grid)}
.forest li.axis{border-top:0}.forest li.axis+li{border-top:0}
.forest .name{font-size:.92rem;line-height:1.2;font-weight:500}
.forest .name small{display:block;color:var(--soft);font-weight:400;font-size:.76rem}
.forest .figures{font-size:.8rem;line-height:1.2;display:grid;text-align:right}
.forest .axis .name{color:var(--soft);font-size:.78rem;font-weight:400}
svg.track,svg.difference{display:block;overflow:visible}
svg text{font:11px var(--sans);fill:var(--soft)}
svg .grid{stroke:var(--grid);stroke-width:1}
svg .chance{stroke:var(--soft);stroke-width:1.2;stroke-dasharray:2 3}
svg .published{fill:var(--card);stroke:var(--ink);stroke-width:1.6}
svg .zero{stroke:var(--soft);stroke-width:1}
svg .reach{stroke:currentColor;stroke-width:4;stroke-linecap:round;opacity:.32}
svg .thick{stroke:currentColor;stroke-width:6;stroke-linecap:round;opacity:.32}
svg .thin{stroke:currentColor;stroke-width:1.6}
svg circle{fill:currentColor}
.p0{color:var(--p0)}.p1{color:var(--p1)}.p2{color:var(--p2)}.p3{color:var(--p3)}
.key li{color:var(--ink)}.key li svg{color:inherit}.key li.p0 svg{color:var(--p0)}
.key li.p1 svg{color:var(--p1)}.key li.p2 svg{color:var(--p2)}.key li.p3 svg{color:var(--p3)}
.none{color:var(--soft)}
.claims{list-style:none;counter-reset:claim;padding:0;margin:0 0 1.4rem;display:grid;gap:.8rem}
.claims>li{counter-increment:claim;background:var(--card);border:1px solid var(--line);
border-radius:10px;padding:.9rem 1rem}
.claims h3::before{content:counter(claim) ". ";color:var(--soft)}
.verdicts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,19rem),1fr));
gap:.8rem 1.6rem}
.verdict{font-size:.88rem;min-width:0}
.verdict h4{margin:0 0 .35rem;font:500 .86rem var(--sans);display:flex;gap:.6rem;
justify-content:space-between;align-items:center}
.verdict p{margin:.25rem 0 0;color:var(--soft);line-height:1.4}
.verdict p.effect{color:var(--ink)}
.pill{display:inline-block;border-radius:99px;padding:.05rem .6rem;font-size:.82rem;font-weight:600;
white-space:nowrap;border:1.5px solid currentColor}
.pill sup{line-height:0}
.holds{color:var(--holds)}.fails{color:var(--fails)}.open{color:var(--open)}.pill.open{border-style:dashed}
.box{margin:0 0 1.2rem;border:1px solid var(--line);border-radius:10px;background:var(--card);
overflow:hidden}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.86rem}
.caption{margin:0;padding:.6rem .8rem;max-width:none;border-bottom:1px solid var(--line)}
td.number small{white-space:normal}
td small,th small{display:block;color:var(--soft);font-size:.92em;font-weight:400}
td.words{white-space:normal;min-width:14rem}
th,td{padding:.42rem .8rem;text-align:left;border-top:1px solid var(--grid);white-space:nowrap}
thead th{border-top:0;border-bottom:1.5px solid var(--line);font-weight:600;color:var(--soft);
font-size:.8rem;vertical-align:bottom}
tbody th{font-weight:500;position:sticky;left:0;background:var(--card);z-index:1}
.number{text-align:right}
td.shaded{background:color-mix(in srgb,var(--p0) var(--shade),var(--card))}
@media (prefers-color-scheme:light){td.shaded.dark{color:#fff}}
@media (prefers-color-scheme:dark){td.shaded.dark{color:#0b1015}}
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,19.5rem),1fr));gap:1rem;
margin:0 0 1.4rem}
figure{margin:0 0 1.4rem;background:var(--card);border:1px solid var(--line);border-radius:10px;
overflow:hidden;break-inside:avoid}
.gallery figure{margin:0}
figure img{display:block;width:100%;height:auto}
figcaption{padding:.5rem .8rem .7rem}
details{margin:0 0 1.2rem}
summary{cursor:pointer;font-weight:600;margin:0 0 .7rem}
pre{margin:0 0 1.2rem;padding:.8rem 1rem;background:var(--card);border:1px solid var(--line);
border-radius:10px;overflow-x:auto;font:.82rem/1.5 var(--mono)}
pre code{font:inherit}
details pre{max-height:26rem;overflow:auto}
ul{padding-left:1.2rem;margin:0 0 1rem}li{margin:.15rem 0}.forest li,.key li,nav li{margin:0}
@media (max-width:40rem){body{font-size:15.5px}header{padding-top:1.6rem}
header,nav,main{padding:0 1rem}
.forest{padding:.4rem .7rem}
.forest li{grid-template-columns:1fr auto;padding:.45rem 0 .2rem}
.forest .track{grid-column:1/-1;grid-row:2}
.forest .figures{display:flex;gap:.8rem;align-items:baseline}
.forest .name small{display:inline;margin-left:.4rem}
.tile strong{font-size:1.45rem}.tiles{grid-template-columns:1fr 1fr;gap:.6rem}
.tile{padding:.6rem .75rem}th,td{padding:.38rem .6rem}
tbody th{white-space:normal;max-width:7.5rem;font-size:.95em;line-height:1.25}}
@media print{:root{--paper:#fff;--card:#fff;--ink:#000;--soft:#444;--line:#bbb;--grid:#e4e4e4;
--p0:#0072b2;--p1:#c64f00;--p2:#00805c;--p3:#a3478a;--holds:#17724a;--fails:#b3261e;--open:#555}
@page{margin:15mm}html{font-size:75%}body{font-size:9.5pt;print-color-adjust:exact;-webkit-print-color-adjust:exact}
header,nav,main{max-width:none;padding:0}nav a{color:inherit}
section{margin-bottom:1.2rem}h2,h3,.caption{break-after:avoid}
.scroll,.box{overflow:visible}table{font-size:7pt}thead th{font-size:6.5pt}
th,td{padding:.15rem .3rem;white-space:normal}td.number{white-space:nowrap}
tbody th{position:static}tr,.claims>li,.tile,.forest li,figure{break-inside:avoid}
.gallery{grid-template-columns:1fr 1fr}figure img:not(.raster){filter:none}
pre{white-space:pre-wrap}details pre{max-height:none}}
"""
