import { runService } from '@banyan/kit/run-service.ts';
import { sagaService, urlsOf } from './compose.ts';

await runService(sagaService(urlsOf(process.env)));
