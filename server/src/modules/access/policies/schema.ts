import { type Static, Type as T } from 'typebox';

const closed = { additionalProperties: false };
const Claims = T.Record(T.String({ maxLength: 200 }), T.Unknown(), { maxProperties: 200 });
const Word = T.String({ minLength: 1, maxLength: 100 });
const Name = T.String({ minLength: 1, maxLength: 500 });

const PolicyRole = T.String({
  pattern: '^(\\*|[a-z][a-z0-9_-]{0,99})$',
  description: 'The role it concerns, or * for all',
});
const Effect = T.Union([T.Literal('allow'), T.Literal('deny')]);
export const codePattern = '^[A-Z][A-Z0-9_]{1,63}$';
const Code = T.String({
  pattern: codePattern,
  description: 'Error code of a denial; default POLICY_DENIED',
});
const Message = T.String({
  minLength: 1,
  maxLength: 500,
  pattern: '\\S',
  description: 'What a denial says to the caller',
});
const RuleKey = T.String({ minLength: 3, maxLength: 120, pattern: '^[a-z][a-z0-9_.:-]*$' });
const Rule = T.Union([T.Record(T.String(), T.Unknown()), T.Boolean()], {
  description: 'JSON Logic; the policy matches when it is exactly true',
});
const Reason = T.String({ minLength: 1, maxLength: 500 });
const Force = T.Boolean({ description: 'Also when nobody of the tenant could change policies afterwards' });

/** What rules read, as a caller describes it. */
const attributes = {
  identity: T.Optional(
    T.Object(
      {
        id: T.Optional(Name),
        external_id: T.Optional(Name),
        role: T.Optional(Word),
        claims: T.Optional(Claims),
      },
      closed,
    ),
  ),
  identity_id: T.Optional(Name),
  external_id: T.Optional(Name),
  claims: T.Optional(Claims),
  target: T.Optional(
    T.Union(
      [
        T.Object(
          {
            id: T.Optional(Name),
            owner: T.Optional(Name),
            type: T.Optional(Name),
            role: T.Optional(Word),
            labels: T.Optional(T.Union([Claims, T.Array(T.Unknown(), { maxItems: 200 })])),
            metadata: T.Optional(Claims),
          },
          closed,
        ),
        T.Literal('own'),
        T.Null(),
      ],
      {
        description: 'own: something of the caller’s, as a route asks before it has read a row; the default',
      },
    ),
  ),
  memory_type: T.Optional(Name),
  memory_metadata: T.Optional(Claims),
  target_role: T.Optional(Word),
  agent: T.Optional(T.Object({ id: Name, external_id: T.Optional(Name), role: T.Optional(Word) }, closed)),
  request: T.Optional(
    T.Object(
      {
        method: T.Optional(Word),
        path: T.Optional(T.String({ maxLength: 2_000 })),
        ip: T.Optional(Word),
        time: T.Optional(T.String({ format: 'date-time', maxLength: 40 })),
        route_class: T.Optional(Word),
      },
      closed,
    ),
  ),
};
export const QuestionContext = T.Object(attributes, closed);
export type QuestionContext = Static<typeof QuestionContext>;

export const StoredTest = T.Object(
  {
    name: T.String({ minLength: 1, maxLength: 200, pattern: '\\S' }),
    context: T.Object({ role: T.Optional(Word), action: Word, resource: Word, ...attributes }, closed),
    expect: T.Union([T.Literal('match'), T.Literal('no_match'), T.Object({ allowed: T.Boolean() }, closed)], {
      description: 'Whether this policy matches, or what all policies of the tenant together decide',
    }),
  },
  closed,
);
export type StoredTest = Static<typeof StoredTest>;
const Tests = T.Array(StoredTest, { maxItems: 50 });

const nullable = <S extends Parameters<typeof T.Union>[0][number]>(schema: S) => T.Union([schema, T.Null()]);
const about = {
  description: T.Optional(nullable(T.String({ maxLength: 2_000 }))),
  code: T.Optional(nullable(Code)),
  message: T.Optional(nullable(Message)),
  rule_key: T.Optional(nullable(RuleKey)),
};
const Priority = T.Integer({ minimum: -1_000_000, maximum: 1_000_000 });

const fields = {
  effect: T.Optional(Effect),
  priority: T.Optional(Priority),
  is_active: T.Optional(T.Boolean()),
  tests: T.Optional(Tests),
  ...about,
};
export const PolicyCreate = T.Object(
  { role: PolicyRole, rule: Rule, ...fields, force: T.Optional(Force) },
  closed,
);
export type PolicyCreate = Static<typeof PolicyCreate>;

const changeable = { role: T.Optional(PolicyRole), rule: T.Optional(Rule), ...fields };
export const PolicyUpdate = T.Object(
  {
    ...changeable,
    version: T.Optional(
      T.Integer({ minimum: 1, maximum: 2_147_483_647, description: 'The version it was read as' }),
    ),
    reason: T.Optional(Reason),
    force: T.Optional(Force),
  },
  closed,
);
export type PolicyUpdate = Static<typeof PolicyUpdate>;

const content = {
  role: T.String(),
  rule: T.Unknown(),
  effect: Effect,
  priority: T.Integer(),
  is_active: T.Boolean(),
  description: nullable(T.String()),
  code: nullable(T.String()),
  message: nullable(T.String()),
  rule_key: nullable(T.String()),
  tests: T.Array(T.Unknown()),
  written_as: nullable(
    T.Record(T.String(), T.Unknown(), {
      description: 'The form it was written in, where that was not JSON Logic',
    }),
  ),
};
const Warnings = T.Array(T.Object({ path: T.String(), message: T.String() }), {
  description: 'Names in it that are probably not meant so, each with its place',
});
export const Policy = T.Object({
  id: T.String(),
  tenant_id: nullable(T.String()),
  ...content,
  version: T.Integer(),
  builtin: T.Boolean({ description: 'Comes with the server: asked when no policy of the tenant decides' }),
  created_at: nullable(T.String()),
  updated_at: nullable(T.String()),
});
export const PolicyWritten = T.Object({ ...Policy.properties, warnings: T.Optional(Warnings) });

export const PolicyVersion = T.Object({
  policy_id: T.String(),
  version: T.Integer(),
  change: T.Union([
    T.Literal('created'),
    T.Literal('updated'),
    T.Literal('deleted'),
    T.Literal('rolled_back'),
  ]),
  reason: nullable(T.String()),
  changed_by: T.Object({ type: T.String(), id: T.String(), on_behalf_of: nullable(T.String()) }),
  created_at: T.String(),
  policy: T.Object(content, { description: 'The policy as it was; of a deletion, what was deleted' }),
});

export const PolicyRollback = T.Object(
  {
    version: T.Integer({ minimum: 1, maximum: 2_147_483_647 }),
    reason: T.Optional(Reason),
    force: T.Optional(Force),
  },
  closed,
);
export type PolicyRollback = Static<typeof PolicyRollback>;

export const PolicyBulkDelete = T.Object(
  {
    policy_ids: T.Array(T.String({ maxLength: 100 }), { minItems: 1, maxItems: 1_000 }),
    reason: T.Optional(Reason),
    force: T.Optional(Force),
  },
  closed,
);
export type PolicyBulkDelete = Static<typeof PolicyBulkDelete>;

export const PolicyBulkDeleted = T.Object({
  deleted_count: T.Integer(),
  failed_count: T.Integer(),
  failed_policies: T.Array(
    T.Object({
      policy_id: T.String(),
      error: T.String(),
      role: T.Optional(T.String()),
      priority: T.Optional(T.Integer()),
    }),
  ),
  message: T.String(),
});

export const PolicyTest = T.Object(
  {
    role: T.Optional(Word),
    action: T.Optional(Word),
    resource: T.Optional(Word),
    context: T.Optional(QuestionContext),
    ...attributes,
  },
  closed,
);
export type PolicyTest = Static<typeof PolicyTest>;

const Decided = T.Object({
  allowed: T.Optional(T.Boolean()),
  policy_id: nullable(T.String()),
  effect: Effect,
  reason: T.String(),
  code: T.Optional(T.String()),
  message: T.Optional(T.String()),
});
const Trace = T.Array(
  T.Object({
    policy_id: T.String(),
    effect: Effect,
    priority: T.Integer(),
    outcome: T.String(),
    failed: nullable(
      T.Record(T.String(), T.Unknown(), { description: 'The expression because of which it did not match' }),
    ),
  }),
);
export const PolicyTested = T.Object({
  allowed: T.Boolean(),
  decision: Decided,
  trace: Trace,
  role: T.String(),
  action: T.String(),
  resource: T.String(),
  context: T.Record(T.String(), T.Unknown()),
  warnings: T.Optional(Warnings),
});

export const TestResults = T.Object({
  passed: T.Boolean(),
  results: T.Array(
    T.Object({
      name: T.String(),
      passed: T.Boolean(),
      expect: T.Unknown(),
      got: T.Unknown(),
      trace: Trace,
    }),
  ),
});

const SimulatedChange = T.Object(
  {
    op: T.Union([T.Literal('create'), T.Literal('update'), T.Literal('delete')]),
    id: T.Optional(T.String({ maxLength: 100 })),
    policy: T.Optional(T.Object(changeable, closed)),
  },
  closed,
);
export type SimulatedChange = Static<typeof SimulatedChange>;
export const PolicySimulate = T.Object(
  {
    draft: T.Optional(
      T.Object(
        {
          id: T.Optional(T.String({ maxLength: 100, description: 'The policy it would replace' })),
          ...changeable,
        },
        closed,
      ),
    ),
    changes: T.Optional(T.Array(SimulatedChange, { minItems: 1, maxItems: 100 })),
    since: T.Optional(T.String({ format: 'date-time', maxLength: 40 })),
    limit: T.Optional(T.Integer({ minimum: 1, maximum: 1_000, default: 100 })),
  },
  closed,
);
export type PolicySimulate = Static<typeof PolicySimulate>;

const Outcome = T.Object({ allowed: T.Boolean(), policy_id: nullable(T.String()), reason: T.String() });
export const PolicySimulated = T.Object({
  since: T.String(),
  questions: T.Integer({ description: 'Distinct questions that were replayed' }),
  decisions: T.Integer({ description: 'How often they were asked' }),
  allowed_now: T.Integer({ description: 'Questions that would be allowed and are not' }),
  denied_now: T.Integer({ description: 'Questions that would be denied and are not' }),
  changed: T.Array(
    T.Object({
      who: T.Object({
        identity_id: T.String(),
        external_id: T.String(),
        role: T.String(),
        agent_id: T.Optional(T.String()),
      }),
      permission: T.String(),
      target: T.Unknown(),
      request: T.Record(T.String(), T.Unknown()),
      count: T.Integer(),
      last_seen: T.String(),
      before: Outcome,
      after: Outcome,
    }),
    { description: 'The most asked first' },
  ),
  not_recorded: T.Array(T.String(), {
    description: 'What the change reads and these decisions were recorded without',
  }),
  warnings: T.Optional(Warnings),
  locks_out: T.Boolean({ description: 'Nobody could change policies afterwards' }),
});

export const GovernancePolicyCreate = T.Object(
  {
    rule_key: RuleKey,
    enabled: T.Optional(T.Boolean()),
    priority: T.Optional(T.Integer({ minimum: -1_000, maximum: 1_000, default: 100 })),
    condition_json: T.Optional(T.Record(T.String(), T.Unknown())),
    action_json: T.Record(T.String(), T.Unknown()),
    force: T.Optional(Force),
  },
  closed,
);
export type GovernancePolicyCreate = Static<typeof GovernancePolicyCreate>;
export const GovernancePolicyPatch = T.Object(
  {
    enabled: T.Optional(T.Boolean()),
    priority: T.Optional(T.Integer({ minimum: -1_000, maximum: 1_000 })),
    condition_json: T.Optional(T.Record(T.String(), T.Unknown())),
    action_json: T.Optional(T.Record(T.String(), T.Unknown())),
    force: T.Optional(Force),
  },
  closed,
);
export type GovernancePolicyPatch = Static<typeof GovernancePolicyPatch>;
export const GovernancePolicy = T.Object({
  id: T.String(),
  tenant_id: T.String(),
  rule_key: T.String(),
  enabled: T.Boolean(),
  priority: T.Integer(),
  condition_json: T.Record(T.String(), T.Unknown()),
  action_json: T.Record(T.String(), T.Unknown()),
  created_at: T.String(),
  updated_at: T.String(),
  warnings: T.Optional(Warnings),
});
export type GovernancePolicy = Static<typeof GovernancePolicy>;
