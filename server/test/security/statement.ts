import { describe, it } from 'node:test';

/** What holds for the access plane, and the test that fails when its guard is removed. */
export interface Statement {
  id: string;
  /** Where it is demanded: an item of OWASP ASVS 5.0, a section of an RFC or of NIST SP 800-63B-4. */
  source: string;
  says: string;
  /** `<file under server/src>: <what in it is the guard>` */
  guard: string;
  test: () => Promise<void>;
}

/** Proves statements one by one. `guide.test.ts` holds docs/guides/security.md against what is written in the files. */
export function prove(topic: string, statements: Statement[]): void {
  describe(topic, () => {
    for (const { id, source, says, test } of statements) it(`${id} ${says} (${source})`, test);
  });
}
