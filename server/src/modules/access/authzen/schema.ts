import { type Static, Type as T } from 'typebox';
import { checkOf } from '#platform/check.ts';

// The standard's own rules for bodies: unknown fields are ignored, and what is missing answers 400 (section 10.1.1). So
// the routes take any object and the shapes are checked here.
const Properties = T.Optional(T.Record(T.String(), T.Unknown()));
const Id = T.String({ minLength: 1, maxLength: 1_000 });
const Entity = T.Object({ type: Id, id: Id, properties: Properties });
const Action = T.Object({ name: Id, properties: Properties });

/** One question (section 6.1). */
export const Question = T.Object({
  subject: Entity,
  action: Action,
  resource: Entity,
  context: T.Optional(T.Record(T.String(), T.Unknown())),
});
export type Question = Static<typeof Question>;
export const question = checkOf(Question);

export const semantics = ['execute_all', 'deny_on_first_deny', 'permit_on_first_permit'] as const;
export type Semantic = (typeof semantics)[number];

const any = T.Optional(T.Unknown());
export const EvaluationBody = T.Object({ subject: any, action: any, resource: any, context: any });
export const EvaluationsBody = T.Object({
  ...EvaluationBody.properties,
  evaluations: any,
  options: any,
});

export const Decision = T.Object({
  decision: T.Boolean(),
  context: T.Optional(T.Record(T.String(), T.Unknown())),
});
export type Decision = Static<typeof Decision>;

export const Evaluations = T.Object({
  decision: T.Optional(T.Boolean()),
  context: T.Optional(T.Record(T.String(), T.Unknown())),
  evaluations: T.Optional(T.Array(Decision)),
});

export const Metadata = T.Object({
  policy_decision_point: T.String(),
  access_evaluation_endpoint: T.String(),
  access_evaluations_endpoint: T.String(),
});
