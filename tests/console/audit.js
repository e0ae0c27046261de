// What axe looks at first, and what it leaves to people: names, roles, headings, contrast, sizes, the keyboard's way.
() => {
  const wrong = [];
  const seen = (e) => e.checkVisibility() && !e.closest('.hidden, .skip');
  const name = (e) => e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.[0]?.textContent.trim() || e.title
    || document.getElementById(e.getAttribute('aria-labelledby'))?.textContent.trim();
  const controls = [...document.querySelectorAll('button, input, select, a[href], summary, [tabindex="0"]')].filter(seen);
  for (const e of [...controls, ...document.querySelectorAll('[role=img], section')]) if (!name(e)) wrong.push('no name: ' + e.outerHTML);
  for (const e of document.querySelectorAll('[aria-labelledby], [aria-describedby], label[for], output[for]')) {
    for (const key of ['aria-labelledby', 'aria-describedby', 'for']) {
      for (const id of (e.getAttribute(key) ?? '').split(' ').filter(Boolean)) if (!document.getElementById(id)) wrong.push(`${key} of nothing: ${id}`);
    }
  }
  const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) wrong.push('twice: ' + id);
  if (!document.documentElement.lang || !document.title) wrong.push('no language or title');
  if (document.querySelectorAll('main').length !== 1 || document.querySelectorAll('h1').length !== 1) wrong.push('one main and one h1');
  if (!document.querySelector('[role=status]') || !document.querySelector('[role=alert]')) wrong.push('nothing is said to those who do not see');
  for (const e of document.querySelectorAll('[tabindex]')) if (Number(e.getAttribute('tabindex')) > 0) wrong.push('out of order: ' + e.outerHTML);
  for (const e of controls) {
    const { width, height } = (e.type === 'checkbox' ? e.closest('.knob') : e).getBoundingClientRect();
    if (!e.matches('[tabindex]') && (width < 24 || height < 24)) wrong.push(`${width.toFixed(0)} by ${height.toFixed(0)} pixels: ${e.outerHTML.slice(0, 80)}`);
    if (!e.disabled && e.tabIndex < 0) wrong.push('no key reaches: ' + e.outerHTML.slice(0, 80));
  }
  for (const e of document.querySelectorAll('body *')) {
    const scrolls = /auto|scroll/.test(getComputedStyle(e).overflowY) && e.scrollHeight > e.clientHeight + 1;
    if (scrolls && seen(e) && e.tabIndex < 0 && !e.querySelector('a, button, input')) wrong.push('scrolled by no key: ' + e.id);
  }
  if (document.documentElement.scrollWidth > innerWidth) wrong.push(`wider than the window: ${document.documentElement.scrollWidth}`);
  const parse = (c) => c.match(/[\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)).reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
  const paper = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c.length === 3 || c[3] > 0) return c; } return [255, 255, 255]; };
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || e.disabled || !seen(e)) continue;
    const style = getComputedStyle(e), a = light(parse(style.color)), b = light(paper(e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), size = parseFloat(style.fontSize);
    if (ratio < (size >= 24 || (size >= 18.6 && style.fontWeight >= 700) ? 3 : 4.5)) wrong.push(`${ratio.toFixed(1)} to 1: ${e.textContent.trim().slice(0, 40)}`);
  }
  return wrong;
}
