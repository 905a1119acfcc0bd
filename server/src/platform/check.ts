import { createRequire } from 'node:module';
import type { Static, TSchema } from 'typebox';
import type * as Compiler from 'typebox/compile';
import type * as Values from 'typebox/value';

// Not by import(): what is required while its import is under way fails.
const load = createRequire(import.meta.url);
const compiler = () => load('typebox/compile') as typeof Compiler;

/** Whether values are what a schema says, and what is wrong with those that are not. */
export interface Check<T> {
  Check(value: unknown): value is T;
  Errors(value: unknown): ReturnType<Compiler.Validator['Errors']>;
}

const compiled = new WeakMap<TSchema, Compiler.Validator>();

/** The validator of a schema, which the servers of one process share. */
function compiledOf(schema: TSchema): Compiler.Validator {
  let known = compiled.get(schema);
  if (!known) {
    known = compiler().Compile(schema) as unknown as Compiler.Validator;
    compiled.set(schema, known);
  }
  return known;
}

/**
 * A schema's validator, compiled when it is first used, by a compiler that is loaded with the first of them: all together
 * would take a start most of a second.
 */
export function checkOf<T extends TSchema>(schema: T): Check<Static<T>> {
  return {
    Check: (value): value is Static<T> => compiledOf(schema).Check(value),
    Errors: (value) => compiledOf(schema).Errors(value),
  };
}

let converter: typeof Values.Value | undefined;

/** A value with its texts converted to a schema's types, where they can be. */
export function convertTexts(schema: TSchema, value: unknown): unknown {
  converter ??= (load('typebox/value') as typeof Values).Value;
  return converter.Convert(schema, value);
}

/** Loads the compiler soon, so that the first request does not wait for it. */
export const prepareChecks = (): void => void setTimeout(compiler, 500).unref();
