import type { Case } from './case.ts';
import { connections } from './cases/connections.ts';
import { errors } from './cases/errors.ts';
import { interim } from './cases/interim.ts';
import { lastRequests } from './cases/last-requests.ts';
import { requestFields } from './cases/request-fields.ts';
import { requestFraming } from './cases/request-framing.ts';
import { responses } from './cases/responses.ts';
import { targets } from './cases/targets.ts';
import { upgrades } from './cases/upgrades.ts';

export const CASES: readonly Case[] = [
  ...targets,
  ...requestFields,
  ...requestFraming,
  ...responses,
  ...interim,
  ...connections,
  ...lastRequests,
  ...upgrades,
  ...errors,
];
