import { runService } from '@banyan/kit/run-service.ts';
import { paymentService, providerOf } from './compose.ts';

await runService(paymentService(providerOf(process.env)));
