import type { FastifySchemaCompiler } from 'fastify';
import type { TSchema } from 'typebox';
import { checkOf, convertTexts } from '../check.ts';
import { type FieldProblem, invalid } from '../errors.ts';
import { checkText } from './json.ts';

interface SchemaError {
  keyword: string;
  schemaPath: string;
  instancePath: string;
  message: string;
  params?: { additionalProperties?: string[]; requiredProperties?: string[]; pattern?: string };
}

/**
 * A validator from a TypeBox schema. Query and path values are text and are converted to what the schema says;
 * bodies are taken as they are, so "5" is not 5.
 */
export function validator(schema: TSchema, part: string): (value: unknown) => unknown {
  const compiled = checkOf(schema);
  const textsOnly = isOfTexts(schema);
  return (given) => {
    let value = given;
    if (part !== 'body') {
      let isPlain = textsOnly;
      for (const [name, item] of Object.entries((given ?? {}) as object)) {
        if (typeof item !== 'string') isPlain = false;
        for (const text of Array.isArray(item) ? item : [item])
          if (typeof text === 'string') checkText(text, `/${name}`);
      }
      value = isPlain ? (given ?? {}) : converted(schema, (given ?? {}) as Record<string, unknown>);
    }
    if (compiled.Check(value)) return value;
    throw invalid(problems(schema, compiled.Errors(value) as unknown as SchemaError[]));
  };
}

/** The first thing that is wrong with a value that does not pass, in the words of `validator`. */
export const firstProblem = (schema: TSchema, errors: Iterable<unknown>): FieldProblem | undefined =>
  problems(schema, [...errors] as SchemaError[])[0];

/** How Fastify validates each part of a request: values as the schemas say, or the errors of `validator`. */
export const validatorCompiler: FastifySchemaCompiler<TSchema> = ({ schema, httpPart }) => {
  const check = validator(schema, httpPart ?? 'body');
  return (value: unknown) => {
    try {
      return { value: check(value) };
    } catch (error) {
      return { error: error as Error };
    }
  };
};

/** True of an object whose fields are all texts: they come as texts, and a conversion has nothing to do. */
function isOfTexts(schema: TSchema): boolean {
  const { properties } = schema as { properties?: Record<string, Listing> };
  return properties !== undefined && Object.values(properties).every(({ type }) => type === 'string');
}

const decimal = /^-?\d+(\.\d+)?(e[+-]?\d+)?$/i;

/** Values as the schema has them. The conversion cuts 1.5 to 1 and reads 0x1f; such a text stays one and is refused. */
function converted(schema: TSchema, given: Record<string, unknown>): Record<string, unknown> {
  const texts = Object.entries(given);
  const value = convertTexts(schema, given) as Record<string, unknown>;
  for (const [name, text] of texts) {
    const number = value[name];
    if (
      typeof text === 'string' &&
      typeof number === 'number' &&
      !(decimal.test(text) && Number(text) === number)
    )
      value[name] = text;
  }
  return value;
}

/** Which values there are, where the schema at this place lists them. */
function allowedAt(schema: TSchema, schemaPath: string): string | undefined {
  const among = valuesOf(schemaAt(schema, schemaPath.replace(/(\/anyOf\/\d+)+$/, '')));
  return among?.map((value) => JSON.stringify(value)).join(', ');
}

interface Listing {
  const?: unknown;
  enum?: unknown[];
  type?: string;
  anyOf?: Listing[];
}

/** The values a schema lists; undefined for one that does more than list values. */
function valuesOf(schema: Listing | undefined): unknown[] | undefined {
  if (!schema) return undefined;
  if ('const' in schema) return [schema.const];
  if (schema.enum) return schema.enum;
  if (schema.type === 'null') return [null];
  const branches = schema.anyOf?.map(valuesOf);
  return branches?.every((values) => values !== undefined) ? branches.flat() : undefined;
}

function schemaAt(schema: TSchema, schemaPath: string): Listing | undefined {
  const steps = schemaPath
    .split('/')
    .slice(1)
    .map((step) => step.replaceAll('~1', '/').replaceAll('~0', '~'));
  const step = (at: unknown, name: string) => (at as Record<string, unknown> | undefined)?.[name];
  return steps.reduce<unknown>(step, schema) as Listing | undefined;
}

const pointer = (name: string) => name.replaceAll('~', '~0').replaceAll('/', '~1');

/** The branch is not meant: the value is of another type, or not the one value it takes. */
const isOther = ({ keyword, schemaPath }: SchemaError): boolean =>
  ['type', 'const', 'enum', 'anyOf'].includes(keyword) && /\/anyOf\/\d+$/.test(schemaPath);

/** Where one branch of a union is of the value's type, only what that one finds is wrong. */
function ofBranchesMeant(errors: SchemaError[]): SchemaError[] {
  return errors.filter(({ keyword, schemaPath, instancePath }) => {
    if (keyword !== 'type' && keyword !== 'anyOf') return true;
    const union = keyword === 'anyOf' ? `${schemaPath}/anyOf` : schemaPath.replace(/\/\d+$/, '');
    return !(
      union.endsWith('/anyOf') &&
      errors.some(
        (one) =>
          one.schemaPath.startsWith(`${union}/`) &&
          `${one.instancePath}/`.startsWith(`${instancePath}/`) &&
          !isOther(one),
      )
    );
  });
}

/** One entry a field; the branches of a failed union are one entry. */
function problems(schema: TSchema, errors: SchemaError[]): FieldProblem[] {
  const found = new Map<string, string>();
  for (const { keyword, schemaPath, instancePath, message, params } of ofBranchesMeant(errors)) {
    if (keyword === 'additionalProperties') {
      for (const name of params?.additionalProperties ?? [])
        found.set(`${instancePath}/${pointer(name)}`.slice(0, 300), 'is not a known field');
    } else if (keyword === 'boolean' && schemaPath.endsWith('/additionalProperties')) {
      // Of very many unknown fields the validator tells these first, and stops.
      found.set(instancePath.slice(0, 300), 'is not a known field');
    } else if (keyword === 'required') {
      for (const name of params?.requiredProperties ?? [])
        found.set(`${instancePath}/${name}`, 'is required');
    } else if (keyword === 'unevaluatedProperties' || keyword === 'boolean') {
      continue;
    } else if (!found.has(instancePath)) {
      const allowed = allowedAt(schema, schemaPath);
      const blank = keyword === 'pattern' && params?.pattern?.endsWith('\\S');
      if (allowed !== undefined) found.set(instancePath, `is not one of the allowed values: ${allowed}`);
      else if (keyword === 'anyOf') found.set(instancePath, 'is not one of the allowed values');
      else found.set(instancePath, blank ? 'must not be blank' : message);
    }
    if (found.size >= 50) break;
  }
  return [...found].map(([path, message]) => ({ path, message }));
}
