"""A scheduler as one writes it first, and its repair in three steps."""

from datetime import timedelta


class Plausible:
    """Answers, runs, arms after the run; a map in memory says what is armed."""

    def __init__(self, store, nas, run, now, sleep, spawn):
        self.store, self.nas, self.run = store, nas, run
        self.now, self.sleep, self.spawn = now, sleep, spawn
        self.armed = {}

    def start(self):
        try:
            self.armed = self.nas.list_armed()
        except OSError:
            pass  # the next start asks again
        self.on_jobs_changed()

    def on_jobs_changed(self):
        jobs = {job.id for job in self.store.list_jobs()}
        for job_id in sorted(jobs | set(self.armed)):
            self.arm(job_id)

    def fire(self, job_id, fire_at):
        self.armed.pop(job_id, None)  # a one-shot fires once
        job = self.store.claim(job_id, fire_at)
        if job is None:
            return 200  # the first delivery has seen to it
        self.spawn(self.work, job)
        return 202

    def work(self, job):
        while job is not None:
            job_id = job.id
            job = self.store.complete(job_id, self.run(job))
        self.arm(job_id)

    def arm(self, job_id):
        wanted = self.store.next_fire(self.store.get_job(job_id))
        if self.armed.get(job_id) == wanted:
            return
        self.armed[job_id] = wanted
        try:
            self.ask(job_id, wanted)
        except OSError:
            pass  # the next run arms again

    def ask(self, job_id, wanted, **order):
        if wanted is None:
            self.nas.cancel(job_id=job_id, **order)
        else:
            self.nas.provision(job_id=job_id, fire_at=wanted, **order)


class ArmsFirst(Plausible):
    """First repair: a fire is answered once the next one is armed; until then NAS delivers it again."""

    def fire(self, job_id, fire_at):
        self.armed.pop(job_id, None)
        job = self.store.claim(job_id, fire_at)
        if job is not None:
            self.spawn(self.work, job)
        return 202 if self.arm(job_id) else 503

    def arm(self, job_id):
        wanted = self.store.next_fire(self.store.get_job(job_id))
        if self.armed.get(job_id, ...) != wanted:
            try:
                self.ask(job_id, wanted)
            except OSError:
                return False
            self.armed[job_id] = wanted
        return True


class AsksAgain(ArmsFirst):
    """Second repair: no map. NAS is asked what is armed, and what it cannot say is asked again."""

    def start(self):
        self.until_done(self.reconcile)

    def on_jobs_changed(self):
        return self.until_done(self.reconcile)  # not done: whoever changed them is told so

    def until_done(self, step, *arguments):
        for seconds in (1, 5, 15, 30):
            if step(*arguments):
                return True
            self.sleep(seconds)
        return False

    def reconcile(self):
        try:
            armed = self.nas.list_armed()
        except OSError:
            return False
        jobs = {job.id: job for job in self.store.list_jobs()}
        is_done = True
        for job_id in {**jobs, **armed}:
            if armed.get(job_id) != self.store.next_fire(jobs.get(job_id)):
                is_done = self.arm(job_id) and is_done
        return is_done

    def work(self, job):
        while job is not None:
            job_id = job.id
            job = self.store.complete(job_id, self.run(job))
        self.until_done(self.arm, job_id)

    def arm(self, job_id):
        try:
            self.ask(job_id, self.store.next_fire(self.store.get_job(job_id)))
        except OSError:
            return False
        return True


class Lasts(AsksAgain):
    """Third repair: what has begun is looked after.

    A run renews its lease; a start ends the runs of the dead, and takes what is overdue; and a message
    carries the revision of its job, so that a late one undoes no newer one.
    """

    def start(self):
        for job in self.store.list_jobs():
            job = self.store.recover(job.id)
            if job and job.next and job.next < self.now() - timedelta(minutes=1):  # clocks differ
                job = self.store.claim(job.id, job.next)
                if job is not None:
                    self.spawn(self.work, job)
        self.until_done(self.reconcile)

    def work(self, job):
        self.spawn(self.renew, job.id)
        super().work(job)

    def renew(self, job_id):
        while self.store.renew(job_id):
            self.sleep(100)

    def arm(self, job_id):
        try:
            job = self.store.get_job(job_id)
            order = {} if job is None else {"revision": job.revision}
            self.ask(job_id, self.store.next_fire(job), **order)
        except OSError:
            return False
        return True
