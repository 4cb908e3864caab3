"""Texts that have nothing to do with most pictures: by what they score, a collection's own scale is known."""

from __future__ import annotations

VERSION = 1
"""To be raised when the list changes: what was measured with another list is measured again."""

_ABSTRACT = """
the quarterly revenue forecast was revised downwards
terms and conditions apply to this agreement
the committee postponed its decision until further notice
an increase of the interest rate by half a percent
liability is limited to the amount of the invoice
the theorem follows by induction on the number of steps
a necessary but not sufficient condition
the square root of a negative number
please reply to this message before the end of the week
the subscription renews automatically every month
a disagreement about the meaning of justice
the second paragraph of the preliminary report
nobody could remember why the rule had been introduced
according to the latest opinion polls
the average of the last four quarters
a long tradition of constitutional law
inflation expectations remain well anchored
the patch fixes a race condition in the scheduler
the function returns an error code when it fails
please restart the service after changing the settings
the index is rebuilt whenever the schema changes
undefined reference to a symbol in the linker output
null pointer exception at line forty two
the password must contain at least twelve characters
the deadline for submissions has been extended
a comparative study of tax systems
the merger is subject to regulatory approval
he argued that the premise was false
regret about a decision made long ago
the probability that none of them occurs
an unreasonable delay in the proceedings
the philosophy of language in the twentieth century
a summary of the findings is given in the appendix
her appointment as deputy director of the agency
the economic consequences of the treaty
the grammatical subject of the sentence
this page was intentionally left blank
the supplier reserves the right to change prices
an overview of recent developments in arbitration
reimbursement of travel expenses
a moderately strong correlation between both variables
the minutes of the previous meeting were approved
an ambiguous clause in the contract
the gradual decline of local newspapers
the concept of opportunity cost
voluntary self regulation of the industry
the intended audience of this document
a misunderstanding that lasted for years
the pronunciation of foreign words
sixteen percent of the respondents did not answer
"""

_NONSENSE = """
asdf qwer zxcv uiop
lkjh gfds mnbv poiu
xyzzy plugh frobnicate
blorple snarfington quux
qqqqqqqq wwwwwwww
zzzt krrk vvvm
florbish mandrigal tweep
unk unk unk unk
aaaaaaaaaaaaaaaa
dfgkjh sdkfjh weriuy
grompled wistful zanthor of kleb
the of and to in is that
which whereas whereby therefore
8472 1193 5530 0021
3f9a77c2 b81d e04c
0x7fff5fbff8c0
lorem ipsum dolor sit amet
consectetur adipiscing elit sed do
foo bar baz qux
for i in range ( n ) : pass
select count from table where id
{ } [ ] ( ) < > ; ;
? ? ? ! ! !
vrijwaringsclausule onverminderd
bundesausbildungsförderungsgesetz
whatsoever hitherto notwithstanding
mmmm hmmm uhhh errr
tktktk ipipip ororor
plim plam plom
wug blicket dax toma
"""

_FAR_FETCHED = """
an electron microscope image of a virus
a seismograph recording of an earthquake
a blueprint of a sewage treatment plant
an x-ray of a broken collarbone
a spreadsheet with hundreds of rows
a scanned page of a legal contract
a circuit diagram of an amplifier
a satellite photo of a river delta
a chess endgame with two bishops
the cockpit of a cargo plane at night
a microscope slide of plant cells
a page of sheet music for organ
a topographic map of a mountain range
an assembly line in a car factory
the interior of a nuclear reactor
an oil refinery at dusk
a courtroom during a trial
workers inspecting a suspension bridge
a container port seen from above
a laboratory centrifuge
a bar chart of unemployment rates
a dental impression made of plaster
a cross section of a submarine cable
a warehouse full of wooden pallets
a parliament in session
an operating theatre with surgeons
an ultrasound of an unborn child
a switchboard from the nineteen fifties
a trench with water pipes
a stock exchange trading floor
a ploughed field in heavy fog
a stone quarry with excavators
a spiral galaxy in infrared light
a corridor in an abandoned hospital
a crowd at an airport check-in
a fish market early in the morning
a rusty ship propeller in dry dock
a herd of yaks crossing a mountain pass
a printed circuit board under a magnifier
a salt mine with a narrow railway
"""

UNRELATED: tuple[str, ...] = tuple(line.strip() for block in (_ABSTRACT, _NONSENSE, _FAR_FETCHED) for line in block.strip().splitlines())
"""Abstract sentences, strings without meaning, and things few collections show."""
