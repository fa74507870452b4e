import { runService } from '@banyan/kit/run-service.ts';
import { notificationService } from './compose.ts';

await runService(notificationService);
