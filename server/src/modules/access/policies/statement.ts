import { isIPv4 } from 'node:net';
import { type Static, Type as T } from 'typebox';
import { checkOf } from '#platform/check.ts';
import { invalid } from '#platform/errors.ts';
import { RESOURCE_ACTIONS } from '../policy/service.ts';
import { allOf, anyOf, attribute, equals, isScalar } from './expressions.ts';

const texts = T.Array(T.String({ minLength: 1, maxLength: 200 }), { minItems: 1, maxItems: 200 });
const values = T.Record(T.String({ pattern: '^[^.]{1,200}$' }), T.Unknown(), { maxProperties: 50 });
const closed = { additionalProperties: false };
const time = T.String({ format: 'date-time', maxLength: 40 });
const day = T.String({ pattern: '^\\d{4}-\\d\\d-\\d\\d$' });
const isoTime = T.Union([time, day]);

const Statement = T.Object(
  {
    actions: T.Union([T.String({ minLength: 1, maxLength: 100 }), texts]),
    resource: T.Optional(T.String({ minLength: 1, maxLength: 100 })),
    effect: T.Optional(T.Union([T.Literal('allow'), T.Literal('deny')])),
    conditions: T.Optional(
      T.Object(
        {
          roles: T.Optional(texts),
          time_restrictions: T.Optional(
            T.Object(
              {
                time_of_day: T.Optional(
                  T.Array(T.Integer({ minimum: 0, maximum: 23 }), { minItems: 1, maxItems: 24 }),
                ),
                days_of_week: T.Optional(
                  T.Array(T.Integer({ minimum: 0, maximum: 6 }), { minItems: 1, maxItems: 7 }),
                ),
                date_range: T.Optional(
                  T.Object({ start: T.Optional(isoTime), end: T.Optional(isoTime) }, closed),
                ),
              },
              closed,
            ),
          ),
          ip_restrictions: T.Optional(
            T.Object({ allowed_ips: T.Optional(texts), allowed_ranges: T.Optional(texts) }, closed),
          ),
          resource_conditions: T.Optional(
            T.Object({ memory_types: T.Optional(texts), metadata_requirements: T.Optional(values) }, closed),
          ),
          custom_conditions: T.Optional(T.Object({ identity_claims: T.Optional(values) }, closed)),
        },
        closed,
      ),
    ),
  },
  closed,
);
type Statement = Static<typeof Statement>;
const statement = checkOf(Statement);

const fields = ['actions', 'resource', 'effect', 'conditions'];

/** True for a rule in the statement form: none of its fields is an operator of JSON Logic. */
export const isStatement = (rule: unknown): rule is Record<string, unknown> =>
  typeof rule === 'object' &&
  rule !== null &&
  !Array.isArray(rule) &&
  fields.some((name) => Object.hasOwn(rule, name));

/**
 * What a statement (`{actions, resource, effect, conditions}`) says, in JSON Logic. Without an effect it denies, as it
 * always did; a deny stops what stands below it, as it never did but was meant to.
 * @throws ApiError 422 for what can not be said so, with what to write instead
 */
export function ruleOfStatement(
  given: Record<string, unknown>,
  at: string,
): { rule: unknown; effect: 'allow' | 'deny' } {
  if (!statement.Check(given)) throw invalid([problemOf(given, at)]);
  const { actions, resource = '*', effect = 'deny', conditions = {} } = given as Statement;
  return {
    effect,
    rule: allOf([
      ...actionsOf([actions].flat(), `${at}/actions`),
      ...resourceOf(resource, `${at}/resource`),
      ...(conditions.roles ? [{ in: [attribute('role'), conditions.roles] }] : []),
      ...timesOf(conditions.time_restrictions ?? {}, `${at}/conditions/time_restrictions`),
      ...addressesOf(conditions.ip_restrictions ?? {}, `${at}/conditions/ip_restrictions`),
      ...rowsOf(conditions.resource_conditions ?? {}, `${at}/conditions/resource_conditions`),
      ...equalities(
        'claims',
        conditions.custom_conditions?.identity_claims ?? {},
        `${at}/conditions/custom_conditions/identity_claims`,
      ),
    ]),
  };
}

function problemOf(given: Record<string, unknown>, at: string): { path: string; message: string } {
  if (!Object.hasOwn(given, 'actions'))
    return { path: `${at}/actions`, message: 'is required: a statement without actions concerns nothing' };
  const custom = (given.conditions as { custom_conditions?: object } | undefined)?.custom_conditions;
  if (custom && Object.hasOwn(custom, 'tenant_conditions')) {
    return {
      path: `${at}/conditions/custom_conditions/tenant_conditions`,
      message: 'can not be kept: a policy is always of one tenant; leave it out',
    };
  }
  const [first] = statement.Errors(given);
  const path = `${at}${first?.instancePath ?? ''}`.slice(0, 300);
  const unknown = 'is not known in a statement; write the rule in JSON Logic';
  if (first?.keyword === 'additionalProperties')
    return { path: `${path}/${first.params.additionalProperties[0]}`.slice(0, 300), message: unknown };
  return { path, message: first?.keyword === 'boolean' ? unknown : (first?.message ?? 'is not a statement') };
}

const actions: ReadonlySet<string> = new Set(Object.values(RESOURCE_ACTIONS).flat());

/** `write` was create and update there; delete was a word of its own. */
function actionsOf(names: string[], at: string): unknown[] {
  if (names.includes('*')) return [];
  for (const name of names) {
    if (name !== 'write' && !actions.has(name))
      throw invalid([
        { path: at, message: `has ${name}, which is no action; there are ${[...actions].join(', ')}` },
      ]);
  }
  const spelled = names.flatMap((name) => (name === 'write' ? ['create', 'update'] : [name]));
  return [{ in: [attribute('action'), [...new Set(spelled)]] }];
}

function resourceOf(name: string, at: string): unknown[] {
  if (name === '*') return [];
  if (!Object.hasOwn(RESOURCE_ACTIONS, name)) {
    const known = Object.keys(RESOURCE_ACTIONS).join(', ');
    throw invalid([{ path: at, message: `is no resource; there are ${known}, or * for all` }]);
  }
  return [{ '==': [attribute('resource'), name] }];
}

type Conditions = NonNullable<Statement['conditions']>;

/** `request.time` is RFC 3339 in UTC with milliseconds, so that its texts stand in the order of time. */
function timesOf(
  { time_of_day, days_of_week, date_range = {} }: NonNullable<Conditions['time_restrictions']>,
  at: string,
): unknown[] {
  const hour = { substr: [attribute('request.time'), 11, 2] };
  const moment = (text: string, name: string): string => {
    const ms = Date.parse(text);
    if (Number.isNaN(ms)) throw invalid([{ path: `${at}/date_range/${name}`, message: 'is not a time' }]);
    return new Date(ms).toISOString();
  };
  return [
    ...(time_of_day ? [{ in: [hour, time_of_day.map((h) => String(h).padStart(2, '0'))] }] : []),
    ...(days_of_week ? [{ in: [attribute('request.weekday'), days_of_week] }] : []),
    ...(date_range.start === undefined
      ? []
      : [{ '>=': [attribute('request.time'), moment(date_range.start, 'start')] }]),
    ...(date_range.end === undefined
      ? []
      : [{ '<=': [attribute('request.time'), moment(date_range.end, 'end')] }]),
  ];
}

function addressesOf(
  { allowed_ips = [], allowed_ranges = [] }: NonNullable<Conditions['ip_restrictions']>,
  at: string,
): unknown[] {
  const allowed: unknown[] = allowed_ranges.map((range) => rangeOf(range, `${at}/allowed_ranges`));
  if (allowed_ips.length > 0) allowed.push({ in: [attribute('request.ip'), allowed_ips] });
  return allowed.length === 0 ? [] : [anyOf(allowed)];
}

/** JSON Logic has no addresses, only texts: a range of whole parts is one that begins alike. */
function rangeOf(range: string, at: string): unknown {
  const [address = '', bits] = range.split('/');
  const parts = { 8: 1, 16: 2, 24: 3 }[Number(bits)];
  if (!isIPv4(address) || (parts === undefined && bits !== '32' && bits !== undefined)) {
    throw invalid([
      {
        path: at,
        message: `has ${range}; of ranges only IPv4 with /8, /16 or /24 can be kept, else list the addresses`,
      },
    ]);
  }
  if (parts === undefined) return { '==': [attribute('request.ip'), address] };
  const beginning = `${address.split('.').slice(0, parts).join('.')}.`;
  return { '==': [{ substr: [attribute('request.ip'), 0, beginning.length] }, beginning] };
}

function rowsOf(
  { memory_types, metadata_requirements = {} }: NonNullable<Conditions['resource_conditions']>,
  at: string,
): unknown[] {
  return [
    ...(memory_types ? [{ in: [attribute('memory_type'), memory_types] }] : []),
    ...equalities('memory_metadata', metadata_requirements, `${at}/metadata_requirements`),
  ];
}

function equalities(holder: string, wanted: Record<string, unknown>, at: string): unknown[] {
  return Object.entries(wanted).map(([name, value]) => {
    if (!isScalar(value))
      throw invalid([{ path: `${at}/${name}`, message: 'must be text, a number, true, false or null' }]);
    return equals(`${holder}.${name}`, value);
  });
}
