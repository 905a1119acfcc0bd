/** The one expression, or all of several. */
export const allOf = (rules: unknown[]): unknown =>
  rules.length === 0 ? true : rules.length === 1 ? rules[0] : { and: rules };

export const anyOf = (rules: unknown[]): unknown => (rules.length === 1 ? rules[0] : { or: rules });

export const attribute = (name: string) => ({ var: name });

export type Scalar = string | number | boolean | null;
export const isScalar = (value: unknown): value is Scalar =>
  value === null || ['string', 'number', 'boolean'].includes(typeof value);

/** Equality as the originals have it: of value and type. */
export const equals = (name: string, value: Scalar) => ({ '===': [attribute(name), value] });
