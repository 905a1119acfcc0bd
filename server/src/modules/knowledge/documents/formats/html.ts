import { type DefaultTreeAdapterTypes, defaultTreeAdapter, parse } from 'parse5';
import { Unreadable } from './format.ts';
import { type Sight, seenIn } from './seen.ts';
import { decode, decoderOf } from './text.ts';
import { Writer } from './writer.ts';

type Node = DefaultTreeAdapterTypes.Node;
type Element = DefaultTreeAdapterTypes.Element;
type Parent = DefaultTreeAdapterTypes.ParentNode;

/** Deeper pages are broken or hostile: finding where a tag belongs takes time with the square of the depth. */
const maxDepth = 500;

/** Elements whose content nobody reads as text of the page. */
const skipped = new Set(
  'script style template noscript noframes noembed svg math iframe object embed canvas audio video select datalist button nav dialog textarea head'.split(
    ' ',
  ),
);
const blocks = new Set(
  'address article aside blockquote body center dd details div dl dt fieldset figcaption figure footer form header hgroup hr html legend li main ol p pre section summary table tbody td tfoot th thead tr ul h1 h2 h3 h4 h5 h6'.split(
    ' ',
  ),
);

/**
 * The text of a page with its headings, lists and tables. What is not content is left out: scripts, navigation, hidden
 * parts, and all that stands beside the `main` element where there is exactly one.
 * @throws Unreadable
 */
export function readHtml(bytes: Buffer, maxChars: number): string {
  return htmlText(decodeHtml(bytes), maxChars);
}

/** As browsers do: byte order mark, `<meta charset>`, UTF-8 where it is valid, windows-1252. */
function decodeHtml(bytes: Buffer): string {
  const head = bytes.toString('latin1', 0, 4_096);
  const meta = /<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w-]{2,40})/i.exec(head)?.[1]?.toLowerCase();
  const named = meta && decoderOf(meta) && !/^utf-?16/.test(meta) ? meta : undefined;
  try {
    return decode(bytes, named);
  } catch (error) {
    if (!(error instanceof Unreadable)) throw error;
    return decode(bytes, 'windows-1252');
  }
}

export function htmlText(html: string, maxChars: number): string {
  let depth = 0;
  const document = parse(html, {
    treeAdapter: {
      ...defaultTreeAdapter,
      onItemPush: () => {
        if (++depth > maxDepth)
          throw new Unreadable(`The page nests elements deeper than ${maxDepth} levels.`);
      },
      onItemPop: () => {
        depth -= 1;
      },
    },
  });
  const writer = new Writer(maxChars);
  const title = textOf(elementsOf(elementsOf(document, 'head')[0], 'title')[0]);
  leaveSeen(document, { isVisible: true, hasSize: true });
  const mains = elementsOf(document, 'main');
  const root = mains.length === 1 && textOf(mains[0]).trim() ? mains[0]! : document;
  // The one heading a page without its own has.
  if (!elementsOf(root, 'h1').some((one) => textOf(one).trim())) writer.heading(1, title);
  new Reducer(writer).block(root);
  return writer.finish();
}

const isElement = (node: Node): node is Element => 'tagName' in node;
const childrenOf = (node: Node | undefined): Node[] =>
  node && 'childNodes' in node ? (node as Parent).childNodes : [];
const attribute = (element: Element, name: string): string | undefined =>
  element.attrs.find((one) => one.name === name)?.value;

const isSkipped = (element: Element): boolean =>
  skipped.has(element.tagName) ||
  attribute(element, 'hidden') !== undefined ||
  attribute(element, 'popover') !== undefined ||
  attribute(element, 'aria-hidden') === 'true' ||
  attribute(element, 'role') === 'navigation';

/** Takes out of a page what is not content or can not be seen, before anything of it is read. */
function leaveSeen(parent: Parent, sight: Sight): void {
  parent.childNodes = parent.childNodes.filter((child) => {
    if (child.nodeName === '#text') return sight.isVisible && sight.hasSize;
    if (!isElement(child)) return true;
    const own = isSkipped(child) ? undefined : seenIn(attribute(child, 'style'), sight);
    if (own) leaveSeen(child, own);
    // A cell stays, so that those after it stand under their own headers.
    else if (/^t[dh]$/.test(child.tagName)) child.childNodes = [];
    else return false;
    return true;
  });
}

/** In the order of the page. */
function elementsOf(root: Node | undefined, name: string): Element[] {
  const found: Element[] = [];
  const stack: Node[] = root ? [root] : [];
  for (let node = stack.pop(); node; node = stack.pop()) {
    if (isElement(node) && node.tagName === name) found.push(node);
    for (const child of childrenOf(node).toReversed()) stack.push(child);
  }
  return found;
}

/** All that is read of a node, as one run of text; blocks are kept apart by a space. */
function textOf(node: Node | undefined): string {
  if (!node) return '';
  if (node.nodeName === '#text') return (node as DefaultTreeAdapterTypes.TextNode).value;
  if (isElement(node) && node.tagName === 'br') return '\n';
  const text = childrenOf(node).map(textOf).join('');
  return isElement(node) && blocks.has(node.tagName) ? ` ${text} ` : text;
}

const holdsBlocks = (node: Node): boolean =>
  childrenOf(node).some((child) => isElement(child) && (blocks.has(child.tagName) || holdsBlocks(child)));

/** Walks a page and writes what is read. */
class Reducer {
  private readonly writer: Writer;
  /** Text of the paragraph that is being gathered. */
  private run = '';

  constructor(writer: Writer) {
    this.writer = writer;
  }

  block(node: Node): void {
    for (const child of childrenOf(node)) this.visit(child, -1);
    this.flush();
  }

  /** @param depth of the list it stands in; -1 outside */
  private visit(node: Node, depth: number): void {
    // A line break of the source is a space; only `br` is one of the text.
    if (node.nodeName === '#text') {
      this.run += (node as DefaultTreeAdapterTypes.TextNode).value.replace(/\s+/g, ' ');
      return;
    }
    if (!isElement(node)) return;
    const { tagName } = node;
    if (tagName === 'br') this.run += '\n';
    if (!blocks.has(tagName)) {
      for (const child of node.childNodes) this.visit(child, depth);
      return;
    }
    this.flush();
    if (/^h[1-6]$/.test(tagName)) this.writer.heading(Number(tagName[1]), textOf(node));
    else if (tagName === 'pre') this.writer.code(preformatted(node));
    else if (tagName === 'table') this.table(node, depth);
    else if (tagName === 'ul' || tagName === 'ol') this.list(node, depth + 1);
    else {
      for (const child of node.childNodes) this.visit(child, depth);
      this.flush();
    }
  }

  private flush(): void {
    this.writer.paragraph(this.run);
    this.run = '';
  }

  private list(list: Element, depth: number): void {
    let number = Number(attribute(list, 'start') ?? 1) || 1;
    if (depth === 0) this.writer.apart();
    for (const item of list.childNodes) {
      if (!isElement(item)) continue;
      if (item.tagName !== 'li') {
        this.visit(item, depth - 1);
        continue;
      }
      const inner = item.childNodes.filter(
        (child) => isElement(child) && /^(ul|ol|table|pre)$/.test(child.tagName),
      );
      const own = item.childNodes.filter((child) => !inner.includes(child));
      const marker = list.tagName === 'ol' ? `${number++}.` : '-';
      this.writer.item(depth, marker, own.map(textOf).join(''));
      for (const child of inner) this.visit(child, depth);
    }
  }

  private table(table: Element, depth: number): void {
    const caption = elementsOf(table, 'caption')[0];
    if (caption) this.writer.paragraph(textOf(caption));
    const rows = rowsOf(table);
    const header = rows.findIndex((cells) => cells.length > 0 && cells.every(({ isHeader }) => isHeader));
    // A table that only lays out the page is read as what it holds.
    const lays =
      header < 0 &&
      (rows.every((cells) => cells.length < 2) ||
        rows.some((cells) => cells.some(({ cell }) => isLayout(cell))));
    if (lays) {
      for (const { cell } of rows.flat()) {
        for (const child of cell.childNodes) this.visit(child, depth);
        this.flush();
      }
      return;
    }
    const texts = rows.map((cells) => cells.flatMap(({ cell }) => [textOf(cell), ...blank(cell)]));
    if (header < 0) this.writer.rows(texts);
    else
      this.writer.rows(
        texts.filter((_, i) => i !== header),
        texts[header]!.map((name) => name.replace(/\s+/g, ' ').trim()),
      );
  }
}

/** Cells that a wide one covers, so that the next one stands under its own header. */
const blank = (cell: Element): string[] =>
  Array.from({ length: Math.min(Number(attribute(cell, 'colspan') ?? 1) || 1, 100) - 1 }, () => '');

const isLayout = (cell: Element): boolean =>
  ['table', 'h1', 'h2', 'h3', 'h4', 'h5', 'h6', 'pre'].some((name) => elementsOf(cell, name).length > 0) ||
  cell.childNodes.filter((child) => isElement(child) && child.tagName === 'p').length > 2 ||
  (holdsBlocks(cell) && textOf(cell).length > 1_000);

/** Rows of a table itself, not of those inside its cells. */
function rowsOf(table: Element): { cell: Element; isHeader: boolean }[][] {
  const rows: Element[] = [];
  const groups: Element[] = [table];
  const inHead = new Set<Element>();
  for (const group of groups) {
    for (const child of group.childNodes) {
      if (!isElement(child)) continue;
      if (/^(thead|tbody|tfoot)$/.test(child.tagName)) groups.push(child);
      else if (child.tagName === 'tr') {
        rows.push(child);
        if (group.tagName === 'thead') inHead.add(child);
      }
    }
  }
  return rows.map((row) =>
    row.childNodes
      .filter((cell): cell is Element => isElement(cell) && /^t[dh]$/.test(cell.tagName))
      .map((cell) => ({ cell, isHeader: cell.tagName === 'th' || inHead.has(row) })),
  );
}

const preformatted = (node: Node): string =>
  node.nodeName === '#text'
    ? (node as DefaultTreeAdapterTypes.TextNode).value
    : childrenOf(node)
        .map((child) => (child.nodeName === 'br' ? '\n' : preformatted(child)))
        .join('');
