/** A document of the demo corpus, as it would be uploaded. */
export type DemoDocument = {
  document_id: string;
  filename: string;
  content_type: 'text/markdown';
  text: string;
};

const releaseGates = `# Agent 2.0 release process

This demo corpus describes Agent 2.0, an invented support assistant: how it is released, how it is tested, and how it is run. Agent 2.0 answers customers from the handbook of the company that operates it, cites the pages it used, and hands over to a person when the handbook does not help.

A new version ships every second Tuesday. A release is a decision by people, prepared by machines: every gate below leaves a signed report, and the release manager may stop the process at any point but may not skip a gate.

## Release gates

Agent 2.0 has six release gates, and a version ships only when all of them are green:

1. Tests: the unit, contract and journey suites pass twice in a row on the exact build that will ship.
2. Answer quality: at least 92 % of the 400 reference questions are answered correctly, and no topic falls by more than two points against the version in production.
3. Safety: none of the 150 attack prompts reveals another customer's data or triggers a tool that was not allowed.
4. Performance: the first words of an answer appear within 1.5 seconds for 95 % of requests at twice the usual load.
5. Security: no known vulnerability rated high or critical is open in the code, its dependencies or its images.
6. Rollback: the previous version has been restored from this build, with its data, in under ten minutes.

## Rollout stages

An approved version reaches customers in four stages: staff only for one day, then 1 %, 10 % and finally all of the traffic. Each stage lasts at least four hours and is compared with the version still in production.

The rollout stops by itself when the error rate exceeds 1 %, when hand-overs to people rise by a quarter, or when the time to the first word gets worse by more than 20 %. Going on after a stop takes the agreement of the release manager and the engineer on call.

## Rollback and hotfixes

Any engineer on call may roll back at once, without asking. Traffic returns to the previous version within two minutes, because that version keeps running for 48 hours after each release.

A hotfix changes one thing only. It passes the same gates, with one exception: answer quality is measured on the 80 most important reference questions instead of all 400. A review on the next working day asks which gate should have caught the fault, and the answer becomes a new test.
`;

const testingStrategy = `# Agent 2.0 testing strategy

The testing strategy of Agent 2.0, the assistant of this demo corpus, is to check each promise at the cheapest level that can break it, and to judge answers by what a customer would notice. Code is tested with exact expectations; answers of the language model, which vary, are tested as samples with agreed limits.

Every fault found in production is first reproduced as a failing test and only then repaired. Nobody merges over a red build, and a test that fails at random counts as a fault of its own, with two days to be fixed or removed.

## Test layers

Tests are arranged in four layers, from the fastest to the slowest:

- Unit tests cover rules and calculations without network or database; all 3,000 of them run in under a minute on each commit.
- Contract tests compare every service with its published interface, so that one team's change can not surprise another.
- Journey tests drive the whole product as a customer would, from the first question to the hand-over, against a real database and a scripted language model.
- Live tests ask the production system twenty known questions every five minutes and alert the engineer on call when two in a row go wrong.

## Answer evaluation

Answers are evaluated every night on 400 reference questions that support staff wrote and review each quarter. An answer counts as correct when it states the expected facts, cites a page that supports them, and adds nothing that the page does not say.

A second language model does the first marking. People re-mark a random tenth of its verdicts, and the nightly result is valid only while both agree in at least 95 % of the cases. One question in ten has no answer in the handbook: there, the only correct reaction is to say so.
`;

const operations = `# Agent 2.0 architecture and operations

The architecture of Agent 2.0, the assistant of this demo corpus, is a short pipeline of four services. The gateway authenticates the caller and limits the rate; retrieval finds the handbook passages that the caller may read; the writer asks a language model to answer from these passages alone; the recorder stores the conversation and everything that led to the answer.

The services keep no state of their own. Conversations, passages and settings live in one PostgreSQL database per region, so that any instance can be replaced at any time. If the language model is down, Agent 2.0 still shows the passages it found.

## Service levels and alerts

Agent 2.0 promises its customers three service levels, measured over 30 days:

| Promise | Target | Alert when |
| --- | --- | --- |
| Availability | 99.9 % of requests succeed | 2 % fail for five minutes |
| Speed | first words within 1.5 seconds for 95 % of requests | slower for ten minutes |
| Honesty | 99 % of answers cite a page that supports them | one nightly evaluation misses it |

When a month's error budget is spent, new features wait and the team works on reliability until the service is back within its targets.

## Incidents and backups

The engineer on call acknowledges an alert within five minutes, day and night, and opens an incident channel. Customers are told within 30 minutes what is affected and when they will hear more. A written review without blame follows within three working days.

The database is backed up continuously and copied to a second region every hour. A restore is rehearsed each month: it must lose at most five minutes of data and finish within one hour. Conversations are deleted after 90 days, in the backups as well.
`;

/** The tenant and the corpus that the demo documents belong to. */
export const DEMO_TENANT_ID = 't1';
export const DEMO_CORPUS_ID = 'c1';

/** Three documents on an invented product; under default chunk options they make ten chunks. */
export const demoDocuments: DemoDocument[] = [
  document('agent-2-release-gates', releaseGates),
  document('agent-2-testing-strategy', testingStrategy),
  document('agent-2-operations', operations),
];

function document(document_id: string, text: string): DemoDocument {
  return { document_id, filename: `${document_id}.md`, content_type: 'text/markdown', text };
}
