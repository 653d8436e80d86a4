//! The model as a system under test.

use epoll_acceptor::sim::kernel::{Family, Fd, Kernel, Mask, Sleep, Thread};

use crate::conformance::cases::{System, Trigger};

pub(crate) struct Model {
    pub(crate) kernel: Kernel,
    pub(crate) listeners: Vec<Fd>,
    pub(crate) epolls: Vec<Fd>,
}

impl System for Model {
    fn new(listeners: usize, epolls: usize) -> Self {
        let mut kernel = Kernel::new();
        let listeners = (0..listeners).map(|_| kernel.listener(Family::Tcp4, 128).unwrap()).collect();
        let epolls = (0..epolls).map(|_| kernel.epoll().unwrap()).collect();
        Self { kernel, listeners, epolls }
    }

    fn watch(&mut self, epoll: usize, listener: usize, trigger: Trigger) {
        self.kernel.add(self.epolls[epoll], self.listeners[listener], mask(trigger), 0).unwrap();
    }

    fn nest(&mut self, outer: usize, inner: usize, trigger: Trigger) {
        self.kernel.add(self.epolls[outer], self.epolls[inner], mask(trigger), 0).unwrap();
    }

    fn rearm(&mut self, epoll: usize, listener: usize, trigger: Trigger) {
        self.kernel.modify(self.epolls[epoll], self.listeners[listener], mask(trigger), 0).unwrap();
    }

    fn connect(&mut self, listener: usize) {
        let address = self.kernel.address(self.listeners[listener]).unwrap();
        self.kernel.connect(address).unwrap();
    }

    fn queued(&mut self, listener: usize) -> usize {
        self.kernel.depth(self.listeners[listener]).unwrap() as usize
    }

    fn wait(&mut self, epoll: usize, max: usize) -> usize {
        self.kernel.wait(self.epolls[epoll], max).unwrap().len()
    }

    fn is_readable(&mut self, epoll: usize) -> bool {
        !self.kernel.poll(self.epolls[epoll], Mask::IN).unwrap().is_empty()
    }

    fn woken(&mut self, epoll: usize, threads: usize, max: usize, connect: &[usize]) -> usize {
        let threads = || (0..u32::try_from(threads).unwrap()).map(Thread);
        for thread in threads() {
            assert_eq!(self.kernel.sleep(self.epolls[epoll], thread, max, None), Ok(Sleep::Asleep));
        }
        connect.iter().for_each(|listener| self.connect(*listener));
        loop {
            let Some(thread) = self.kernel.runnable().next() else { break };
            assert!(self.kernel.run(thread).is_ok());
        }
        threads().filter(|thread| !self.kernel.is_waiting(*thread)).count()
    }
}

pub(crate) fn mask(trigger: Trigger) -> Mask {
    match trigger {
        Trigger::Level => Mask::IN,
        Trigger::Edge => Mask::IN | Mask::ET,
    }
}
