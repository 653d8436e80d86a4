//! The scenario, stage by stage.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use super::client::{Client, Door, Fate, Manner, Speech};
use super::freeze::Guard;
use super::sight::{Place, Queue, Sight};
use super::verdict::{Facts, Limit, Tally};

/// Between two looks.
const TICK: Duration = Duration::from_millis(5);
/// The server has done with the flood what it will do when nothing has changed for this long.
const SETTLED: Duration = Duration::from_millis(400);
/// One who was taken and is not closed within this is held.
const HELD: Duration = Duration::from_millis(4);
/// Between two looks at one who was not.
const PAUSE_MAX: Duration = Duration::from_millis(20);
/// The same where the kernel's view of the server is not to be had.
const HELD_UNSEEN: Duration = Duration::from_millis(100);
/// How often the crowd comes, at most.
const BURSTS: usize = 10;
/// The doctor watches for this long.
const WATCHED: Duration = Duration::from_secs(1);
/// The queue has this long to become empty, if something is taken all the time.
const DRAINED: Duration = Duration::from_secs(30);
/// When so much time has passed in all, no stage goes on that could.
const ENOUGH: Duration = Duration::from_secs(60);
/// Who comes in the end, and how far apart.
const NEWCOMERS: usize = 5;
const APART: Duration = Duration::from_millis(50);

/// What is asked of the ordeal.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) hold: usize,
    pub(crate) flood: usize,
    pub(crate) speech: Speech,
    pub(crate) patience: Duration,
    pub(crate) freeze: bool,
}

/// A server that is being put through it.
#[derive(Debug)]
pub(crate) struct Ordeal<'a> {
    plan: &'a Plan,
    sight: &'a Sight,
    door: &'a Door,
    manner: Manner,
    began: Instant,
    held: Vec<Client>,
    /// Of the flood, those who have not left and have not been answered.
    waiting: Vec<Client>,
    pub(crate) facts: Facts,
}

impl<'a> Ordeal<'a> {
    pub(crate) fn new(plan: &'a Plan, sight: &'a Sight, door: &'a Door) -> Self {
        let (held, waiting, facts) = (Vec::new(), Vec::new(), Facts::default());
        let (manner, began) = (Manner::Silent, Instant::now());
        Self { plan, sight, door, manner, began, held, waiting, facts }
    }

    /// Learns how the server treats a client when it has room.
    pub(crate) fn first(&mut self) -> io::Result<()> {
        let mut client = Client::call(self.door)?;
        let began = Instant::now();
        let mut manner = None;
        while manner.is_none() && began.elapsed() < self.plan.patience {
            thread::sleep(TICK);
            client.step(Some(&self.plan.speech))?;
            manner = client.manner();
        }
        let is_taken = places(self.sight, std::slice::from_ref(&client))? == Some(vec![Place::Server]);
        self.facts.manner = manner.or((is_taken && !client.has_ended()).then_some(Manner::Silent));
        self.manner = self.facts.manner.unwrap_or(Manner::Silent);
        if self.facts.manner.is_none() {
            self.facts.after = self.sight.examine(WATCHED)?;
            return Ok(());
        }
        self.leave(std::slice::from_mut(&mut client)).map(drop)
    }

    /// Fills the server until it takes no more, or enough are held.
    pub(crate) fn hold(&mut self) -> io::Result<()> {
        // Nobody can be held by a server that closes on its own.
        while self.manner != Manner::GreetsAndCloses && self.held.len() < self.plan.hold && !self.is_late() {
            let mut client = Client::call(self.door)?;
            match self.is_held(&mut client)? {
                Fate::Answered => self.held.push(client),
                Fate::Refused => self.facts.limit = Limit::Refuses,
                Fate::Waits => {
                    self.facts.limit = Limit::Waits;
                    // It is the first of those who wait.
                    self.waiting.push(client);
                }
            }
            if self.facts.limit != Limit::NotMet {
                break;
            }
        }
        self.held.iter_mut().try_for_each(|client| client.step(None))?;
        let before = self.held.len();
        self.held.retain(|client| !client.has_ended());
        if self.held.len() < before && self.facts.limit == Limit::NotMet {
            self.facts.limit = Limit::Refuses;
        }
        self.facts.held = self.held.len();
        Ok(())
    }

    /// Answered: it has a place. It says nothing, and stays.
    fn is_held(&self, client: &mut Client) -> io::Result<Fate> {
        let began = Instant::now();
        // Each look costs more the more are held.
        let mut pause = HELD / 4;
        loop {
            client.step(None)?;
            if client.has_ended() {
                return Ok(Fate::Refused);
            }
            match places(self.sight, std::slice::from_ref(client))? {
                Some(places) => {
                    client.note(places == [Place::Server]);
                    if client.has_been_taken_for(HELD) {
                        return Ok(Fate::Answered);
                    }
                    pause = if places == [Place::Server] { HELD } else { (pause * 2).min(PAUSE_MAX) };
                }
                // Without the kernel's view one that greets tells by its greeting, others by not closing.
                None if self.manner == Manner::Greets => match client.fate(self.manner) {
                    Fate::Answered => return Ok(Fate::Answered),
                    Fate::Refused | Fate::Waits => {}
                },
                None if client.is_connected() && began.elapsed() > HELD_UNSEEN => return Ok(Fate::Answered),
                None => {}
            }
            if began.elapsed() > self.plan.patience {
                return Ok(Fate::Waits);
            }
            thread::sleep(pause);
        }
    }

    /// Many at once; and then half of them leave.
    ///
    /// A server that is quick takes them one by one, and is not hurt. So they come again, a few
    /// times, until some
    /// are left in the queue. Stopped in the meantime it finds them all at once: then one time is enough.
    pub(crate) fn flood(&mut self) -> io::Result<()> {
        let guard = if self.plan.freeze { Some(Guard::new()?) } else { None };
        let bursts = if self.plan.freeze { 1 } else { BURSTS };
        for _ in 0..bursts {
            self.burst(guard.as_ref())?;
            self.settle()?;
            let waiting = self.queued_of(&self.waiting)?;
            let all = self.waiting.len();
            let refused =
                self.waiting.iter().filter(|client| client.fate(self.manner) == Fate::Refused).count();
            let flood = &mut self.facts.flood;
            flood.came += all;
            flood.refused += refused;
            flood.answered += all.saturating_sub(refused + waiting);
            flood.unanswered += waiting;
            self.facts.bursts += 1;
            if waiting > 0 || refused < all || self.is_late() {
                break;
            }
            self.waiting.clear();
        }
        // Every other one leaves, whatever became of it.
        let (all, mut number) = (self.waiting.len(), 0);
        self.waiting.retain(|_| {
            number += 1;
            number % 2 == 0
        });
        self.facts.quit = all - self.waiting.len();
        Ok(())
    }

    fn burst(&mut self, guard: Option<&Guard>) -> io::Result<()> {
        let (count, door) = (self.flood_that_fits()?, self.door);
        let mut crowd = (0..count).map(|_| Client::prepare(door)).collect::<io::Result<Vec<_>>>()?;
        let mut connect = || crowd.iter_mut().try_for_each(Client::connect);
        match guard {
            Some(guard) => guard.frozen(&self.sight.pids()?, connect)?,
            None => connect()?,
        }
        self.waiting.extend(crowd);
        Ok(())
    }

    /// How many may come so that the newcomers still find room in the queue.
    fn flood_that_fits(&self) -> io::Result<usize> {
        let Some(Queue { queued, capacity }) = self.sight.queue()? else { return Ok(self.plan.flood) };
        let room = (capacity.saturating_sub(queued) as usize).saturating_sub(NEWCOMERS);
        Ok(self.plan.flood.min(room.max(1)))
    }

    /// Waits until the server has done with the flood what it will do.
    fn settle(&mut self) -> io::Result<()> {
        let (began, mut changed, mut last) = (Instant::now(), Instant::now(), None);
        while changed.elapsed() < SETTLED && began.elapsed() < self.plan.patience.max(2 * SETTLED) {
            thread::sleep(TICK);
            self.look()?;
            for (number, client) in self.waiting.iter_mut().enumerate() {
                // Those who will leave have nothing to say.
                client.step((number % 2 == 1).then_some(&self.plan.speech))?;
            }
            let settled =
                self.waiting.iter().filter(|client| client.fate(self.manner) != Fate::Waits).count();
            let queue = self.sight.queue()?;
            if settled == self.waiting.len() && queue.is_some_and(|queue| queue.queued == 0) {
                break;
            }
            let now = Some((settled, queue));
            if now != last {
                (last, changed) = (now, Instant::now());
            }
        }
        Ok(())
    }

    /// Asks the doctor what a full server does.
    pub(crate) fn watch(&mut self) -> io::Result<()> {
        self.facts.full = self.sight.examine(WATCHED)?;
        Ok(())
    }

    /// One of the held leaves; if that leads to nothing, all of them.
    pub(crate) fn free(&mut self) -> io::Result<()> {
        self.facts.stayed.came = self.waiting.len();
        let someone_waited = self.facts.flood.unanswered > 0;
        for batch in [1, usize::MAX] {
            let count = batch.min(self.held.len());
            let mut leaving = self.held.split_off(self.held.len() - count);
            self.facts.freed += self.leave(&mut leaving)?;
            if self.drain()? {
                self.facts.resumed_with = someone_waited.then_some(self.facts.freed);
                break;
            }
        }
        self.facts.stayed.unanswered = self.waiting.len();
        self.facts.left_behind = self.sight.queue()?.map(|queue| queue.queued);
        Ok(())
    }

    /// Waits until the queue is empty and all have been answered, as long as something happens.
    fn drain(&mut self) -> io::Result<bool> {
        let (began, mut changed, mut last) = (Instant::now(), Instant::now(), None);
        loop {
            self.answered_leave()?;
            let queue = self.sight.queue()?;
            if self.waiting.is_empty() && queue.is_none_or(|queue| queue.queued == 0) {
                self.facts.stalled = false;
                return Ok(true);
            }
            let now = Some((self.waiting.len(), queue));
            if now != last {
                (last, changed) = (now, Instant::now());
            }
            self.facts.stalled = changed.elapsed() >= self.plan.patience;
            if self.facts.stalled || began.elapsed() > DRAINED || self.is_late() {
                return Ok(false);
            }
            thread::sleep(TICK);
        }
    }

    /// Who has an answer makes room for the next one.
    fn answered_leave(&mut self) -> io::Result<()> {
        self.look()?;
        self.waiting.iter_mut().try_for_each(|client| client.step(Some(&self.plan.speech)))?;
        let (manner, stayed) = (self.manner, &mut self.facts.stayed);
        self.waiting.retain(|client| match client.fate(manner) {
            Fate::Waits => true,
            Fate::Answered => {
                stayed.answered += 1;
                false
            }
            Fate::Refused => {
                stayed.refused += 1;
                false
            }
        });
        Ok(())
    }

    /// A few come, now that there is room.
    pub(crate) fn newcomers(&mut self) -> io::Result<()> {
        let mut tally = Tally { came: NEWCOMERS, ..Tally::default() };
        // What is left of the flood stays where it is, and is not counted again.
        let stayed = std::mem::take(&mut self.waiting);
        let before = self.facts.stayed;
        self.facts.stayed = Tally::default();
        let (began, mut came) = (Instant::now(), 0);
        let mut last = Instant::now();
        while began.elapsed() < APART * 5 || last.elapsed() < self.plan.patience {
            if came < NEWCOMERS && (came == 0 || last.elapsed() >= APART) {
                self.waiting.push(Client::call(self.door)?);
                (came, last) = (came + 1, Instant::now());
            }
            thread::sleep(TICK);
            self.answered_leave()?;
            if came == NEWCOMERS && self.waiting.is_empty() {
                break;
            }
        }
        (tally.answered, tally.refused) = (self.facts.stayed.answered, self.facts.stayed.refused);
        tally.unanswered = self.waiting.len();
        self.facts.stayed = before;
        self.facts.newcomers = tally;
        // Those who are still here belong to the picture.
        self.facts.after = self.sight.examine(WATCHED)?;
        drop(stayed);
        Ok(())
    }

    /// They leave, and wait until the server has closed. How many it did.
    fn leave(&self, clients: &mut [Client]) -> io::Result<usize> {
        clients.iter().for_each(Client::say_goodbye);
        let began = Instant::now();
        while !clients.iter().all(Client::has_ended) && began.elapsed() < self.plan.patience {
            thread::sleep(TICK / 5);
            clients.iter_mut().try_for_each(|client| client.step(None))?;
        }
        Ok(clients.iter().filter(|client| client.has_ended()).count())
    }

    fn is_late(&self) -> bool {
        self.began.elapsed() > ENOUGH
    }

    /// Notes which of them the server has; only of a silent one nothing else tells.
    fn look(&mut self) -> io::Result<()> {
        if self.manner != Manner::Silent {
            return Ok(());
        }
        let places = places(self.sight, &self.waiting)?.unwrap_or_default();
        for (client, place) in self.waiting.iter_mut().zip(places) {
            client.note(place == Place::Server);
        }
        Ok(())
    }

    /// How many of these are in the queue; where that is not to be seen, how many are not answered.
    fn queued_of(&self, clients: &[Client]) -> io::Result<usize> {
        let unanswered = |client: &&Client| client.fate(self.manner) == Fate::Waits;
        Ok(match places(self.sight, clients)? {
            Some(places) => {
                let stands = clients.iter().zip(places);
                stands.filter(|(client, place)| unanswered(client) && *place != Place::Server).count()
            }
            None => clients.iter().filter(unanswered).count(),
        })
    }
}

fn places(sight: &Sight, clients: &[Client]) -> io::Result<Option<Vec<Place>>> {
    let names: Vec<_> = clients.iter().map(Client::name).collect();
    sight.places(&names)
}
