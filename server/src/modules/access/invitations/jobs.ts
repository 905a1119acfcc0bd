import type { Schedule } from '#platform/jobs/schedule.ts';
import { expireInvitations } from './service.ts';

export const invitationSchedules: Schedule[] = [
  { name: 'invitations.expire', pattern: '20 * * * * *', run: expireInvitations },
];
