// The role is the first argument, and a file of its own: steps, member.
'use strict'

require(`./${process.argv[2]}.js`)
