/* The relay's verbs on one run, with everything that can go wrong in between.

   Three drivers take N steps. A driver claims (or its lost claim is granted again by its id), announces a `once` tool in
   the ledger, runs it, commits (with or without renewing the claim) or releases. It may die before every line, and any
   answer may be lost. Time is nondeterminism: a lease may end at any instant. One signal arrives at any instant: a cancel.

   Each guard can be taken out (-DFENCE=0 -DCAS=0 -DLEDGER=0 -DCOUNT=0 -DCANCEL=0): then an assertion fails. */
#ifndef FENCE
#define FENCE 1     /* writes are checked against fence and claim id */
#endif
#ifndef CAS
#define CAS 1       /* a commit is checked against the index */
#endif
#ifndef LEDGER
#define LEDGER 1    /* a once tool is marked as started before it runs */
#endif
#ifndef COUNT
#define COUNT 1     /* attempts are counted when claimed */
#endif
#ifndef CANCEL
#define CANCEL 1    /* unread signals are heard before a step, after a renewal too */
#endif
#define W 2         /* drivers */
#define N 2         /* steps */
#define LIMIT 2     /* attempts of a step */
#define MAXF 6      /* claims */

/* the run's row, its ledger, its inbox */
byte step = 0, fence = 0, attempts = 0, owner = 255;
bool held = false, leased = false, ended = false, cancel = false;
bool started[N];

/* what the outside saw */
byte commits[N], effects[N], tries[N];
bool zombie = false;

#define OURS ((!FENCE || (held && fence == f && owner == id)) && (!CAS || step == i))

proctype Driver(byte id) {
  byte i, f, a;      /* index, fence and attempt as claimed */
  bool go, renew, stop;
  bool known;        /* a cancel was in the inbox that came with the claim */
idle:
  do
  :: ended || fence >= MAXF -> break
  :: d_step { (!ended && !leased && fence < MAXF) ->                       /* claim */
       fence++; held = true; leased = true; owner = id; i = step; f = fence; known = cancel;
       attempts = attempts + COUNT; a = attempts };
     if :: skip :: goto idle fi;                                           /* kill -9: the lease stays */
open:
     /* machine.open: a cancel that was there when the claim was granted, or too many attempts, ends the run */
     stop = (CANCEL && known) || a > LIMIT;
     if
     :: stop -> d_step { if :: OURS -> ended = true; held = false; leased = false :: else fi }; goto idle
     :: !stop ->
        d_step { assert(!known); tries[i]++; assert(tries[i] <= LIMIT) };
        /* progress: the mark of a once tool; also tells of a cancel */
        d_step { go = false; stop = false;
          if :: !OURS -> stop = true
             :: OURS && started[i] && LEDGER -> stop = cancel             /* unknown: told to the model */
             :: OURS && cancel -> stop = true
             :: OURS && !cancel && !(started[i] && LEDGER) -> started[i] = LEDGER; go = true
          fi };
        if :: skip :: goto idle fi;                                        /* killed, or shut down without a word */
        if :: go -> d_step { effects[i]++; assert(effects[i] <= 1) } :: else fi;
        if :: skip :: goto idle fi;
        if
        :: atomic { OURS -> held = false; leased = false; attempts = attempts - COUNT; tries[i]-- }; goto idle  /* a release that was no attempt */
        :: skip
        fi;
        renew = false;
        if :: renew = true :: skip fi;
commit:
        skip;
        d_step {
          if
          :: OURS ->
             zombie = zombie || !(held && fence == f && owner == id);
             if :: i < N -> commits[i]++ :: else fi;
             assert(!zombie); assert(commits[i] <= 1);
             step++; attempts = 0; known = cancel;
             if :: (step >= N || stop) -> ended = true; held = false; leased = false; renew = false
                :: else -> held = renew; leased = renew; attempts = (renew -> COUNT : 0); a = attempts
             fi;
             go = true
          :: else -> go = false
          fi };
        if
        :: go && renew -> i++; goto open                             /* the answer came: on with the next step */
        :: go -> goto commit                                               /* the answer was lost: the same again */
        :: skip -> goto idle                                               /* done, fenced, or dead */
        fi
     fi
  od
}

proctype Time() { do :: ended || fence >= MAXF -> break :: d_step { leased -> leased = false } od }
proctype Person() { if :: cancel = true :: skip fi }

init { atomic { byte n = 0; do :: n < W -> run Driver(n); n++ :: else -> break od; run Time(); run Person() } }
