/** What an element hands on to those inside it, which each of them may set otherwise. */
export interface Sight {
  isVisible: boolean;
  hasSize: boolean;
}

const comments = /\/\*.*?(?:\*\/|$)/gs;
const escapes = /\\(?:([0-9a-f]{1,6})\s?|(.))/gis;
/** Sizes that are a share of the size around. */
const relative = /\d(?:em|ex|ch|%)$|^(?:inherit|unset|smaller|larger)$/;
/** The size in `italic 400 14px/1.5 Arial`. */
const sizeOfFont = /(?:^|\s)(0|[\d.]+(?:[a-z]+|%))(?=[\s/])/;

/** A style attribute, read: the values each property is given, in lower case. */
function valuesIn(style: string): (property: string) => string[] {
  const declarations = style
    .replace(comments, ' ')
    .replace(escapes, (_, code?: string, sign?: string) =>
      code ? String.fromCodePoint(Math.min(Number.parseInt(code, 16), 0x10_ffff)) : sign!,
    )
    .toLowerCase()
    .replace(/!\s*important/g, '')
    .split(';')
    .map((one) => one.split(':').map((part) => part.trim()));
  return (wanted) => declarations.flatMap(([property, value]) => (property === wanted && value ? value : []));
}

/**
 * How what stands in an element is seen, by its style attribute; undefined where nothing in it is. What hides counts, also
 * where another declaration of the attribute would win.
 */
export function seenIn(style: string | undefined, around: Sight): Sight | undefined {
  if (!style) return around;
  const values = valuesIn(style);
  if (
    values('display').includes('none') ||
    values('content-visibility').includes('hidden') ||
    values('opacity').some((value) => Number.parseFloat(value) <= 0)
  )
    return undefined;
  const own = { ...around };
  const visibility = values('visibility');
  if (visibility.some((value) => value === 'hidden' || value === 'collapse')) own.isVisible = false;
  else if (visibility.some((value) => value === 'visible' || value === 'initial')) own.isVisible = true;
  const fonts = values('font').flatMap((value) => sizeOfFont.exec(value)?.[1] ?? []);
  const sizes = [...values('font-size'), ...fonts];
  if (sizes.some((size) => Number.parseFloat(size) === 0)) own.hasSize = false;
  else if (sizes.some((size) => !relative.test(size))) own.hasSize = true;
  return own;
}
